// Package attacks has one tenant of bellhop, the rival, attack another, the victim, and the operator of both: by every
// finding of the security review and by variants of each, against the built binaries and a real Temporal server.
//
// An attack succeeds when the victim or the operator notices harm: a callback that is lost, compute that is removed, a
// status that lies, data of another tenant that is read, a worker that is killed or starved. The suite runs against other
// binaries than those in bin/ when BELLHOP_ATTACK_BIN names their folder; README.md lists what succeeded against the
// binaries of before the findings were mended.
package attacks

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// attack is one attempt to do harm.
type attack struct {
	name string
	// finding is the review's, such as "C1".
	finding string
	// reason is what the harm would be.
	reason string
	// run tries it and says whether it succeeded, and what was seen.
	run func(h *harness) (succeeded bool, how string)
	// alone says that the attack loads the machine or measures it: it runs beside no other.
	alone bool
}

// least is how many attacks there are at least.
const least = 60

// beside is how many attacks run at once. Most of them wait.
const beside = 10

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", fmt.Sprint(beside)); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func attacks() []attack {
	return slices.Concat(addressAttacks(), tokenAttacks(), believedAttacks(), inputAttacks(), doorAttacks(), providerAttacks(), operatorAttacks(), restateAttacks(), codecAttacks())
}

// TestAttacks runs them all, counts and ends with one line.
func TestAttacks(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes minutes")
	}
	s := newStage(t)
	var (
		mu               sync.Mutex
		tried, succeeded int
	)
	try := func(t *testing.T, a attack) {
		t.Helper()
		h := &harness{T: t, stage: s, name: a.name}
		harm, how := a.run(h)
		mu.Lock()
		defer mu.Unlock()
		tried++
		verdict := "failed"
		if harm {
			succeeded++
			verdict = "SUCCEEDED"
		}
		t.Logf("%s | %s | %s | %s", a.finding, a.name, verdict, strings.ReplaceAll(how, "\n", " "))
		if harm {
			t.Errorf("the attack succeeded (%s: %s): %s", a.finding, a.reason, how)
		}
	}
	if n := len(attacks()); n < least {
		t.Fatalf("there are %d attacks, want %d at least", n, least)
	}
	names := map[string]bool{}
	for _, a := range attacks() {
		if names[a.name] {
			t.Fatalf("two attacks are named %s", a.name)
		}
		names[a.name] = true
	}
	t.Run("beside", func(t *testing.T) {
		for _, a := range attacks() {
			if !a.alone {
				t.Run(a.name, func(t *testing.T) {
					t.Parallel()
					try(t, a)
				})
			}
		}
	})
	t.Run("alone", func(t *testing.T) {
		for _, a := range attacks() {
			if a.alone {
				t.Run(a.name, func(t *testing.T) { try(t, a) })
			}
		}
	})
	fmt.Printf("attacks: %d tried, %d succeeded\n", tried, succeeded)
}
