// Package providertest is the law of [activities.Provider], executable. Every implementation passes it:
//
//	func TestLaw(t *testing.T) {
//		providertest.Run(t, providertest.Suite{
//			New:   func(t *testing.T) activities.Provider { … },
//			Ready: providertest.Template{Spec: bellhop.Spec{Image: "nginx:1.27"}},
//			Count: func(t *testing.T, tenant string) int { … },
//		})
//	}
//
// Read the articles in this order: asking.go, replacing.go, deleting.go, fencing.go, failing.go, watching.go,
// inventory.go. Each says why it exists, and says so again when it is broken.
package providertest

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"bellhop"
	"bellhop/activities"
)

// Suite is what an implementation must supply to be judged. Hooks that may be nil skip the articles that need them.
type Suite struct {
	// New returns the provider of one more worker. All that it returns within one Run share a backend, as the workers
	// of one deployment do. Release what it holds with t.Cleanup. Required.
	New func(t *testing.T) activities.Provider
	// Provider is the name that operations give as their provider. Default "tested".
	Provider string
	// Ready becomes ready on its own. It should take a moment, so that the time before is seen too. Required.
	Ready Template
	// Slow is accepted and then stays pending for longer than Patience. Nil: nothing can be kept pending.
	Slow *Template
	// SlowAsk keeps the ask itself busy for longer than Patience, such as an image that takes long to pull. Nil: no
	// ask of this provider takes long.
	SlowAsk *Template
	// Deletion is the provider_config of delete operations. Default: none.
	Deletion json.RawMessage
	// Failing are operations that are bound to fail, each in its own way.
	Failing []Failing
	// Count says how many replicas of ours stand for a tenant, healthy or not, asking the backend itself rather than
	// the provider: it proves that nothing is doubled and nothing left. One ready operation makes as many as its
	// spec's replicas. It is also called at clean-up, when t.Context is over. Required.
	Count func(t *testing.T, tenant string) int
	// Foreign makes something that is not bellhop's under the very name that the provider would use, and returns a
	// check that it is still there, untouched. It is removed with t.Cleanup. Nil: names cannot collide.
	Foreign func(t *testing.T, tenant, resource string) (intact func() error)
	// Break makes what is ready fail for good, from outside: kills its process, say. Nil: it cannot be reached.
	Break func(t *testing.T, tenant, resource string)
	// RemembersDeletions says that an operation older than a deletion is still superseded when all is gone. Platforms
	// that keep no trace of what was deleted cannot tell.
	RemembersDeletions bool
	// WatchTellsGone says that Watch can attribute a disappearance to the deletion that caused it. Where it cannot, the
	// backstop observes it.
	WatchTellsGone bool
	// Patience bounds the wait for anything that shall happen. Default 1 minute.
	Patience time.Duration
	// Prompt bounds one call that needs nobody to wait. Default 10 seconds.
	Prompt time.Duration
}

// Template is what an operation asks for. The suite adds tenant, resource, ids and an environment variable that makes
// each operation's spec differ from the one before.
type Template struct {
	Spec           bellhop.Spec
	ProviderConfig json.RawMessage
}

// Failing is an operation that is bound to fail.
type Failing struct {
	// Name is the subtest's.
	Name string
	Template
	// Codes are the failure's possible codes. Required.
	Codes []bellhop.Code
	// Leaves says that replicas stand when it has failed; they must be listed.
	Leaves bool
	// Evidence names a piece of evidence that must have been captured. Empty: none is asked for.
	Evidence string
}

// article is one sentence of the law.
type article struct {
	name string
	// law is the sentence, and why it must hold.
	law string
	try func(c *corner)
}

// Run judges an implementation. Its subtests run in parallel, each with a tenant of its own.
func Run(t *testing.T, suite Suite) {
	t.Helper()
	suite.fillDefaults(t)
	run := fmt.Sprintf("law%x", time.Now().UnixNano()&0xffffffffff)
	count := 0
	for _, chapter := range []struct {
		name     string
		articles []article
	}{
		{"Asking", asking(suite)},
		{"Replacing", replacing(suite)},
		{"Deleting", deleting(suite)},
		{"Fencing", fencing(suite)},
		{"Failing", failing(suite)},
		{"Watching", watching(suite)},
		{"Inventory", inventory(suite)},
	} {
		t.Run(chapter.name, func(t *testing.T) {
			for _, article := range chapter.articles {
				count++
				tenant := fmt.Sprintf("%s-%d", run, count)
				t.Run(article.name, func(t *testing.T) {
					t.Parallel()
					t.Cleanup(func() {
						if t.Failed() {
							t.Logf("the law: %s", article.law)
						}
					})
					article.try(newCorner(t, suite, tenant))
				})
			}
		})
	}
}

func (s *Suite) fillDefaults(t *testing.T) {
	t.Helper()
	if s.New == nil || s.Count == nil || s.Ready.Spec.Image == "" {
		t.Fatal("providertest: New, Count and Ready are required")
	}
	if s.Provider == "" {
		s.Provider = "tested"
	}
	if s.Patience == 0 {
		s.Patience = time.Minute
	}
	if s.Prompt == 0 {
		s.Prompt = 10 * time.Second
	}
}
