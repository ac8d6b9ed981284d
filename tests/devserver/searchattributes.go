package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/server/common/searchattribute/sadefs"
)

// searchAttributes maps names to types.
type searchAttributes map[string]enumspb.IndexedValueType

// bellhopSearchAttributes are the ones that bellhop's workflows set: without
// them every operation would be refused.
func bellhopSearchAttributes() searchAttributes {
	return searchAttributes{
		"BellhopTenant":      enumspb.INDEXED_VALUE_TYPE_KEYWORD,
		"BellhopResource":    enumspb.INDEXED_VALUE_TYPE_KEYWORD,
		"BellhopProvider":    enumspb.INDEXED_VALUE_TYPE_KEYWORD,
		"BellhopState":       enumspb.INDEXED_VALUE_TYPE_KEYWORD,
		"BellhopUndelivered": enumspb.INDEXED_VALUE_TYPE_KEYWORD_LIST,
	}
}

// add adds one, unless the server would refuse it: better a fault of usage
// among the others now than an error after the start.
func (s searchAttributes) add(name string, t enumspb.IndexedValueType) error {
	if sadefs.IsReserved(name) {
		return errors.New("the name belongs to the server")
	}
	if had, ok := s[name]; ok && had != t {
		return fmt.Errorf("%s has type %s already", name, had)
	}
	// On SQL a search attribute is an alias for one of a fixed number of columns.
	columns, used := 0, 0
	for _, column := range sadefs.GetDBIndexSearchAttributes(nil).CustomSearchAttributes {
		if column == t {
			columns++
		}
	}
	for other, had := range s {
		if had == t && other != name {
			used++
		}
	}
	if used >= columns {
		return fmt.Errorf("the database holds %d of type %s, no more", columns, t)
	}
	s[name] = t
	return nil
}

// searchAttributeTypes names the types a search attribute can have.
func searchAttributeTypes() []string {
	types := make(map[string]bool)
	for _, t := range sadefs.GetDBIndexSearchAttributes(nil).CustomSearchAttributes {
		types[t.String()] = true
	}
	return slices.Sorted(maps.Keys(types))
}

// ensureSearchAttributes adds the missing ones to a namespace, be it new or from
// an earlier run, and returns when they are listed.
func ensureSearchAttributes(ctx context.Context, operator operatorservice.OperatorServiceClient, namespace string, want searchAttributes) error {
	missing := func() (searchAttributes, error) {
		have, err := operator.ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
		if err != nil {
			return nil, fmt.Errorf("list search attributes of namespace %s: %w", namespace, err)
		}
		rest := searchAttributes{}
		for name, t := range want {
			switch had, ok := have.GetCustomAttributes()[name]; {
			case !ok:
				rest[name] = t
			case had != t:
				return nil, fmt.Errorf("search attribute %s of namespace %s has type %s, not %s", name, namespace, had, t)
			}
		}
		return rest, nil
	}
	rest, err := missing()
	if err != nil || len(rest) == 0 {
		return err
	}
	if _, err := operator.AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: rest}); err != nil {
		return fmt.Errorf("add search attributes to namespace %s: %w", namespace, err)
	}
	return poll(ctx, func() error {
		rest, err := missing()
		if err == nil && len(rest) > 0 {
			err = fmt.Errorf("namespace %s lacks %d search attributes", namespace, len(rest))
		}
		return err
	})
}
