package policy

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"
)

// TestInputIsRenderedForRulesThatLook goes through the ways by which a rule can
// depend on the request. One that does and gets no input would decide wrongly.
func TestInputIsRenderedForRulesThatLook(t *testing.T) {
	for _, c := range []struct {
		name, text string
		looks      bool
	}{
		{"constant", "X := true", false},
		{"default", "default X := true", false},
		{"data", "X { policy_data.defaults.X == true }\npolicy_data := {\"defaults\": {\"X\": true}}", false},
		{"state", "X { not data.pstate.seen }", false},
		{"another rule looks", "X { true }\nY { input.a == 1 }", false},
		{"function without input", "X { f(1) }\nf(n) { n == 1 }", false},
		{"itself", "X { input.a == 1 }", true},
		{"the whole", "X { input == {\"a\": 1} }", true},
		{"negated", "X { not input.b }", true},
		{"second body", "X { false }\nX { input.a }", true},
		{"else", "X { false } else { input.a }", true},
		{"head", "X := {\"allowed\": input.a == 1}", true},
		{"by a rule", "X { y }\ny { z }\nz { input.a }", true},
		{"by a function", "X { f(1) }\nf(n) { input.a == n }", true},
		{"by an argument", "X { f(input) }\nf(r) { r.a == 1 }", true},
		{"by a name", "X { r := input; r.a == 1 }", true},
		{"by an import", "import input.a as first\nX { first == 1 }", true},
		{"by a comprehension", "X { count([v | v := input[_]]) == 1 }", true},
		{"by a name that is computed", "X { o[n].b; n == \"k\" }\no.k.b { input.a == 1 }", true},
		{"by a part", "X.allowed { input.a == 1 }", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := 0
			in := func() ([]byte, error) { asked++; return []byte(`{"a": 1}`), nil }
			r := load(t, "package agent_policy\n"+c.text)
			for range 2 {
				_, err := r.Allow(t.Context(), "X", in)
				if err != nil && !errors.Is(err, errdefs.ErrInternal) {
					t.Fatal(err)
				}
			}
			if (asked == 2) != c.looks || !c.looks && asked != 0 {
				t.Errorf("rendered %d times for two calls", asked)
			}
		})
	}
}

func TestReplacedRulesLookAnew(t *testing.T) {
	r := load(t, "package agent_policy\nX := true")
	if d, err := r.Allow(t.Context(), "X", JSON(nil)); err != nil || !d.Allowed {
		t.Fatal(d, err)
	}
	if err := r.Replace(t.Context(), "package agent_policy\nX { input.a == 1 }"); err != nil {
		t.Fatal(err)
	}
	if d, err := r.Allow(t.Context(), "X", JSON([]byte(`{"a": 1}`))); err != nil || !d.Allowed {
		t.Error(d, err)
	}
	if d, _ := r.Allow(t.Context(), "X", JSON([]byte(`{"a": 2}`))); d.Allowed {
		t.Error("the new rule does not see the request")
	}
}
