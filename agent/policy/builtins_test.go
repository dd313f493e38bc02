package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/open-policy-agent/opa/v1/ast"
)

func TestBannedBuiltins(t *testing.T) {
	for _, name := range bannedNames() {
		if _, ok := ast.BuiltinMap[name]; !ok {
			t.Errorf("%s: the library has no such function; did it get another name?", name)
			continue
		}
		args := strings.TrimSuffix(strings.Repeat("1, ", ast.BuiltinMap[name].Decl.Arity()), ", ")
		for how, text := range map[string]string{
			"call":    "package agent_policy\nX { " + name + "(" + args + ") }",
			"replace": "package agent_policy\nX { count([]) with count as " + name + " }",
		} {
			err := New().Replace(t.Context(), text)
			if !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%s by %s: got %v, want a refusal", name, how, err)
			}
		}
	}
}

// A new version of the library may bring a function that reaches outside. The
// ones it marks so are banned, or in this list because they only look at a
// clock or at random numbers.
func TestNondeterministicBuiltinsAreKnown(t *testing.T) {
	harmless := []string{"rand.intn", "uuid.rfc4122", "time.now_ns", "io.jwt.encode_sign_raw", "io.jwt.encode_sign", "io.jwt.decode_verify"}
	for _, b := range ast.Builtins {
		if b.Nondeterministic && !slices.Contains(bannedNames(), b.Name) && !slices.Contains(harmless, b.Name) {
			t.Errorf("%s is neither banned nor known to be harmless", b.Name)
		}
	}
}

func TestCostlyArguments(t *testing.T) {
	r := load(t, `package agent_policy
default X := false
X { bits.lsh(1, input.n) }
default Y := false
Y { count(numbers.range(input.n, -input.n)) > 0 }
default Z := false
Z { count(numbers.range_step(0, input.n, 1)) > 0 }`)
	for _, c := range []struct {
		endpoint, n string
		want        bool
	}{
		{"X", "8", true}, {"Y", "8", true}, {"Z", "8", true},
		{"X", "1e15", false}, {"X", "9223372036854775807", false}, {"X", "1e300", false},
		{"Y", "1e15", false}, {"Y", "9223372036854775807", false}, {"Y", "1e300", false}, {"Z", "1e15", false},
	} {
		d, err := r.Allow(t.Context(), c.endpoint, JSON([]byte(`{"n":`+c.n+`}`)))
		if err != nil || d.Allowed != c.want {
			t.Errorf("%s of %s: got %v %v, want %v", c.endpoint, c.n, d, err, c.want)
		}
	}
}

func TestPrintsAreBounded(t *testing.T) {
	r := load(t, `package agent_policy
default X := false
X { print(input.nope, input.long); some_i := numbers.range(1, 20000)[_]; print("line", some_i); false }`)
	long := strings.Repeat("ä", maxPrint)
	d, err := r.Allow(t.Context(), "X", JSON([]byte(`{"long":"`+long+`"}`)))
	if err != nil || d.Allowed {
		t.Fatal(d, err)
	}
	if !strings.HasPrefix(d.Reason, "agent_policy:3: <undefined> ää") || !strings.HasSuffix(d.Reason, "…") {
		t.Errorf("got %.40s … %s", d.Reason, d.Reason[max(0, len(d.Reason)-40):])
	}
	if len(d.Reason) > maxPrints+100 {
		t.Errorf("reason has %d bytes", len(d.Reason))
	}
}
