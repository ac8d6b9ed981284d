// Package allowlist decides what a tenant may name at a provider: networks, secrets, images, and whatever else an
// operator lists in the provider's entry.
//
// A list holds patterns. "*" in a pattern stands for any text, and "{tenant}" stands for the operation's tenant. A list
// that holds nothing allows nothing.
package allowlist

import (
	"fmt"
	"regexp"
	"strings"

	"bellhop"
)

// Tenant stands for the operation's tenant in patterns and templates.
const Tenant = "{tenant}"

// ForTenant fills a tenant in where a template asks for one.
func ForTenant(template, tenant string) string { return strings.ReplaceAll(template, Tenant, tenant) }

// Allows says whether one of the patterns allows a name to a tenant.
func Allows(patterns []string, tenant, name string) bool {
	if bellhop.CheckName(tenant) != nil {
		return false // a tenant called "*" would match everything
	}
	for _, pattern := range patterns {
		if match(ForTenant(pattern, tenant), name) {
			return true
		}
	}
	return false
}

// match says whether a name fits a pattern whose tenant is filled in.
func match(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(name) < len(first)+len(last) || !strings.HasPrefix(name, first) || !strings.HasSuffix(name, last) {
		return false
	}
	name = name[len(first) : len(name)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		at := strings.Index(name, part)
		if at < 0 {
			return false
		}
		name = name[at+len(part):]
	}
	return true
}

// Check reports every pattern of a list by which one tenant could name what another tenant is given. A pattern without
// {tenant} gives the same to all tenants, which is the operator's decision.
func Check(path string, patterns []string, faults *bellhop.Faults) {
	for i, pattern := range patterns {
		at := fmt.Sprintf("%s[%d]", path, i)
		if pattern == "" {
			faults.Add(at, "must not be empty")
			continue
		}
		CheckTemplate(at, pattern, faults)
		if faults.Note(at, alone(pattern)) {
			continue
		}
		for _, other := range patterns[:i] {
			faults.Note(at, Apart(other, pattern))
		}
	}
}

// CheckTemplate reports braces that are not those of {tenant}, which would stand for nothing.
func CheckTemplate(path, template string, faults *bellhop.Faults) {
	if strings.ContainsAny(strings.ReplaceAll(template, Tenant, ""), "{}") {
		faults.Add(path, "must have no braces but those of %s", Tenant)
	}
}

// notInTenants is what no tenant's name has. It marks the end of one within a longer name.
var notInTenants = regexp.MustCompile(`[^A-Za-z0-9._-]`)

// alone says why a pattern could allow one name to two different tenants; nil when it cannot.
//
// Tenants are separate when the tenant can be read off the name. That takes a known place where it begins, so no "*"
// before it, and a known end: the end of the pattern, or a character that no tenant's name has. Otherwise
// "net-{tenant}-*" gives tenant "a" what it gives tenant "a-b".
func alone(pattern string) error {
	if !strings.Contains(pattern, Tenant) {
		return nil
	}
	before, end, whole := parts(pattern)
	switch {
	case before+end == "" && whole:
		return fmt.Errorf("must have more in it than %s: a tenant could have the name of something else", Tenant)
	case strings.Contains(before, "*"):
		return fmt.Errorf(`must have no "*" before %s, which one tenant could fill with another's name`, Tenant)
	case !whole && strings.Contains(pattern, "*"):
		return fmt.Errorf(`must have a character that no tenant's name has, such as "/", between %s and "*": `+
			`otherwise tenant "a" may name what belongs to tenant "a-b"`, Tenant)
	}
	return nil
}

// Apart says why two patterns, each of which keeps tenants apart by itself, do not do so together; nil when they do:
// "{tenant}-net" and "net-{tenant}" give "net-a-net" to the tenants "net-a" and "a-net".
func Apart(one, other string) error {
	if one == other || !strings.Contains(one, Tenant) || !strings.Contains(other, Tenant) {
		return nil
	}
	before1, end1, whole1 := parts(one)
	before2, end2, whole2 := parts(other)
	switch {
	case !strings.HasPrefix(before1, before2) && !strings.HasPrefix(before2, before1):
		return nil // no name begins like both
	case before1 == before2 && whole1 && whole2 &&
		(end1 == end2 || !strings.HasSuffix(end1, end2) && !strings.HasSuffix(end2, end1)):
		return nil // the tenant begins at the same place, and ends at the same one or nothing fits both
	}
	return fmt.Errorf("gives one tenant what %q gives another tenant; both need the same text before %s, or texts "+
		"neither of which begins with the other", one, Tenant)
}

// parts are the text before the first tenant of a pattern, and the text behind it that is of a tenant's characters too.
// whole says that this text ends where the tenant's name must have ended.
func parts(pattern string) (before, end string, whole bool) {
	before, after, _ := strings.Cut(pattern, Tenant)
	if at := notInTenants.FindStringIndex(after); at != nil {
		return before, after[:at[0]], after[at[0]] != '*' && after[at[0]] != '{'
	}
	return before, after, true
}
