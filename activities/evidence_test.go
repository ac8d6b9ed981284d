package activities

import "testing"

func TestTailKeepsTheEnd(t *testing.T) {
	last := Tail{Limit: 10}
	for _, text := range []string{"abc", "defghij", "kl", "mnopqrstuvwxyz"} {
		if n, err := last.Write([]byte(text)); n != len(text) || err != nil {
			t.Fatalf("wrote %d of %d, %v", n, len(text), err)
		}
	}
	if got := string(last.bytes); got != "qrstuvwxyz" || !last.cut {
		t.Errorf("kept %q, cut %t", got, last.cut)
	}
}
