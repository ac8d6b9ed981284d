package main

import (
	"embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bellhop"
	"bellhop/activities/docker"
	"bellhop/activities/ecs"
	"bellhop/activities/kubernetes"
	"bellhop/activities/simulated"
)

// schemas are made of the types and their comments: make docs.
//
//go:embed schemas/*.json
var schemas embed.FS

// providerTypes are the types of providers, each with what it says of an operation. The next is a line here and one in
// tests/docs/schemas.go.
func providerTypes() map[string]func(bellhop.Operation) error {
	return map[string]func(bellhop.Operation) error{
		"docker":     docker.Check,
		"ecs":        ecs.Check,
		"kubernetes": kubernetes.Check,
		"simulated":  simulated.Check,
	}
}

// typeNames are their names, for messages.
func typeNames() string { return strings.Join(slices.Sorted(maps.Keys(providerTypes())), ", ") }

func (a *app) schema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema [PROVIDER]",
		Short: "Print the JSON Schema of an operation, or of a provider's provider_config",
		Long: `Print the JSON Schema (2020-12) of an operation, or of the provider_config that a type of provider takes: ` + typeNames() + `.

An editor that knows it completes and checks files as they are written. "bellhop validate" checks more: also what one field
allows another to be.`,
		Example: `bellhop schema > operation.schema.json
bellhop schema docker`,
		GroupID: groupStart,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("one at a time, please: %s takes one type of provider", cmd.CommandPath())
			}
			return nil
		},
		RunE: a.act(func(cmd *cobra.Command, args []string) error {
			name := "operation"
			if len(args) == 1 {
				if name = args[0]; providerTypes()[name] == nil {
					return usage(cmd, fmt.Errorf("%q is none of the types of providers: %s", name, typeNames()))
				}
			}
			text, err := schemas.ReadFile("schemas/" + name + ".json")
			if err != nil {
				return fmt.Errorf("find the schema of %s: %w", name, err)
			}
			if _, err := a.stdout.Write(text); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			return nil
		}),
		ValidArgsFunction: cobra.FixedCompletions(slices.Sorted(maps.Keys(providerTypes())), cobra.ShellCompDirectiveNoFileComp),
	}
}

// checkAsProvider adds what a type of provider says of an operation to what is wrong with it already.
func (in input) checkAsProvider(op bellhop.Operation, kind string, err error) error {
	bad, _ := errors.AsType[*badInput](err)
	if err != nil && bad == nil {
		return err
	}
	var faults bellhop.Faults
	if bad != nil {
		faults = slices.Clone(bad.faults)
	}
	faults.Note("", providerTypes()[kind](op))
	return in.bad(nil, faults.Err())
}
