package allowlist

import (
	"math/rand/v2"
	"strings"
	"testing"

	"bellhop"
)

func TestAllows_OnlyWhatIsListed(t *testing.T) {
	for _, row := range []struct {
		reason, pattern, tenant, name string
		want                          bool
	}{
		{"the name itself", "shared", "acme", "shared", true},
		{"nothing but the name", "shared", "acme", "shared2", false},
		{"names are case-sensitive", "shared", "acme", "Shared", false},
		{"the tenant's own", "net-{tenant}", "acme", "net-acme", true},
		{"a name that another's begins with", "net-{tenant}", "acme", "net-acme2", false},
		{"tenants are case-sensitive", "net-{tenant}", "acme", "net-ACME", false},
		{"any text", "a/{tenant}/*", "acme", "a/acme/b/c:d", true},
		{"no text is text too", "a/{tenant}/*", "acme", "a/acme/", true},
		{"another tenant's folder", "a/{tenant}/*", "acme", "a/acme2/b", false},
		{"the end counts", "*.example/x", "acme", "y.example/x/z", false},
		{"the parts do not overlap", "ab*ba", "acme", "aba", false},
		{"the parts come in their order", "a*b*c*d", "acme", "a-c-b-d", false},
		{"the parts come in their order", "a*b*c*d", "acme", "a-b-c-d", true},
		{"a line break is text, and hides nothing", "a/*", "acme", "b\na/x", false},
		{"a dot is a dot", "a.b", "acme", "axb", false},
		{"a tenant whose name has a meaning in expressions", "net-{tenant}", "a.c", "net-abc", false},
		{"a tenant that is called like a pattern", "net-{tenant}", "*", "net-acme", false},
		{"a tenant that is called like a pattern", "net-{tenant}", "{tenant}", "net-{tenant}", false},
		{"no tenant", "net-{tenant}*", "", "net-acme", false},
		{"everything", "*", "acme", "anything", true},
	} {
		if got := Allows([]string{row.pattern}, row.tenant, row.name); got != row.want {
			t.Errorf("%s: %q allows %q to %q: %t", row.reason, row.pattern, row.name, row.tenant, got)
		}
	}
	if Allows(nil, "acme", "") || Allows(nil, "acme", "x") {
		t.Error("an empty list allows something")
	}
}

func TestCheck_TenantsStayApart(t *testing.T) {
	const end, start, together = "character that no tenant's name has", `must have no "*" before`, "gives one tenant what"
	for _, row := range []struct {
		reason   string
		patterns []string
		want     string
	}{
		{"tenants may share, if the operator says so", []string{"shared-*", "*"}, ""},
		{"the tenant is the end", []string{"net-{tenant}"}, ""},
		{"without a * the name is the tenant's", []string{"{tenant}-net"}, ""},
		{"a slash is in no tenant's name", []string{"arn:aws:secretsmanager:eu-west-1:1:secret:{tenant}/*"}, ""},
		{"nor a colon", []string{"arn:aws:ecs:eu-west-1:1:task-definition/{tenant}:*"}, ""},
		{"a suffix before the slash", []string{"{tenant}-db/*"}, ""},
		{"the same tenant twice", []string{"{tenant}/{tenant}-*"}, "must have more in it than {tenant}"},
		{"a tenant may be called like a registry", []string{"{tenant}/*"}, "must have more in it than {tenant}"},
		{"a tenant may be called like anything", []string{"{tenant}"}, "must have more in it than {tenant}"},
		{"a has what is of ab", []string{"net-{tenant}*"}, end},
		{"a has what is of a-b", []string{"net-{tenant}-*"}, end},
		{"a has what is of a.b", []string{"{tenant}.registry.example/*"}, ""},
		{"a has what is of a_b", []string{"net-{tenant}_*"}, end},
		{"b/acme/ may be a part of rival's name", []string{"arn:*:secret:{tenant}/*"}, start},
		{"a is the end of b-a", []string{"*-{tenant}"}, start},
		{"net-a-net is of both net-a and a-net", []string{"{tenant}-net", "net-{tenant}"}, together},
		{"x-a-db is of both a-db and a", []string{"x-{tenant}", "x-{tenant}-db"}, together},
		{"x-a-db/1 is of both a-db and a", []string{"x-{tenant}/*", "x-{tenant}-db/*"}, together},
		{"shared/a/b is of both shared and a", []string{"r/{tenant}/*", "r/shared/{tenant}/*"}, together},
		{"what begins differently is apart", []string{"db-{tenant}", "net-{tenant}"}, ""},
		{"what ends differently is apart", []string{"{tenant}-db/*", "{tenant}-net/*"}, ""},
		{"one is a part of the other", []string{"r/{tenant}", "r/{tenant}/*"}, ""},
		{"the same twice", []string{"r/{tenant}", "r/{tenant}"}, ""},
		{"a typing error", []string{"net-{tennant}"}, "must have no braces but those of {tenant}"},
		{"nothing", []string{""}, "must not be empty"},
	} {
		var faults bellhop.Faults
		Check("list", row.patterns, &faults)
		got := faults.Error()
		if row.want == "" && len(faults) > 0 || !strings.Contains(got, row.want) {
			t.Errorf("%s: %q: %q, want %q", row.reason, row.patterns, got, row.want)
		}
	}
}

// Whatever a list that passed the check allows to one tenant, it allows to no other.
func TestCheck_NothingThatPassesLetsTenantsMeet(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(from ...string) string { return from[random.IntN(len(from))] }
	text := func(most int, from ...string) string {
		var made strings.Builder
		for range random.IntN(most + 1) {
			made.WriteString(pick(from...))
		}
		return made.String()
	}
	tenant := func() string {
		for {
			if name := text(3, "a", "b", "-"); bellhop.CheckName(name) == nil {
				return name
			}
		}
	}
	passed, compared := 0, 0
	for range 100_000 {
		patterns := []string{text(3, "a", "-", "/", "*") + Tenant + text(4, "a", "-", "/", "*", Tenant), text(3, "a", "-", "/", "*") + Tenant + text(3, "a", "-", "/", "*")}
		var faults bellhop.Faults
		if Check("list", patterns, &faults); len(faults) > 0 {
			continue
		}
		passed++
		for range 20 {
			owner, other := tenant(), tenant()
			name := ForTenant(pick(patterns...), owner)
			for strings.Contains(name, "*") {
				name = strings.Replace(name, "*", text(3, "a", "b", "-", "/"), 1)
			}
			if !Allows(patterns, owner, name) {
				t.Fatalf("%q does not allow %q to %q", patterns, name, owner)
			}
			if owner != other {
				compared++
				if Allows(patterns, other, name) {
					t.Fatalf("%q allows %q to %q and to %q", patterns, name, owner, other)
				}
			}
		}
	}
	if passed < 1000 {
		t.Errorf("%d lists passed; too few to say anything", passed)
	}
	t.Logf("%d lists passed, %d pairs of tenants compared", passed, compared)
}

func TestCheckImage_TakesNamesAndNoIDs(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for image, want := range map[string]string{
		"nginx": "", "nginx:1.27": "", "registry.example.com:5000/acme/web@sha256:" + id: "", "cafe:1": "", "library/cafe": "", "sha/x": "",
		id: "not its id", "sha256:" + id: "not its id", "sha256:abcd": "not its id", "0123456789ab": "not its id", "cafe": "not its id",
		"sha512:" + id: "not its id", "sha256": "not its id", "NGINX": "is not the name of an image", "a//b": "is not the name of an image",
	} {
		err := CheckImage(image)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", image, err, want)
		}
	}
}

func TestAllowsImage_ByTheWholeRepository(t *testing.T) {
	patterns := []string{"docker.io/library/*", "registry.example.com/{tenant}/*"}
	for _, row := range []struct {
		image string
		want  bool
	}{
		{"nginx", true},
		{"nginx:1.27", true},
		{"docker.io/nginx", true},
		{"index.docker.io/library/nginx", true},
		{"acme/nginx", false},
		{"registry.example.com/acme/web:1", true},
		{"registry.example.com/acme/a/b", true},
		{"registry.example.com/rival/web", false},
		{"registry.example.com/acme", false},
		{"registry.example.com:443/acme/web", false},
		{"evil.example/registry.example.com/acme/web", false},
		{"registry.example.com/acme/../rival/web", false},
		{"registry.example.com/acme2/web", false},
		{"localhost/library/nginx", false},
		{"", false},
	} {
		if got := AllowsImage(patterns, "acme", row.image); got != row.want {
			t.Errorf("%q: allowed is %t", row.image, got)
		}
	}
}
