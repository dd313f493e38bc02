package policy

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/open-policy-agent/opa/v1/ast"
)

func TestPatch(t *testing.T) {
	const before = `{"pstate":{"a":1,"l":[1,2,3],"m":{"k":"v"},"a/b":1,"~":2}}`
	for _, c := range []struct{ name, ops, want string }{
		{"nothing", `[]`, before},
		{"add", `[{"op":"add","path":"/pstate/n","value":{"x":[1]}}]`, `{"pstate":{"a":1,"l":[1,2,3],"m":{"k":"v"},"a/b":1,"~":2,"n":{"x":[1]}}}`},
		{"add over", `[{"op":"add","path":"/pstate/a","value":2}]`, `{"pstate":{"a":2,"l":[1,2,3],"m":{"k":"v"},"a/b":1,"~":2}}`},
		{"add into list", `[{"op":"add","path":"/pstate/l/1","value":9}]`, `{"pstate":{"a":1,"l":[1,9,2,3],"m":{"k":"v"},"a/b":1,"~":2}}`},
		{"append", `[{"op":"add","path":"/pstate/l/-","value":9}]`, `{"pstate":{"a":1,"l":[1,2,3,9],"m":{"k":"v"},"a/b":1,"~":2}}`},
		{"remove", `[{"op":"remove","path":"/pstate/m/k"}]`, `{"pstate":{"a":1,"l":[1,2,3],"m":{},"a/b":1,"~":2}}`},
		{"escapes", `[{"op":"remove","path":"/pstate/a~1b"},{"op":"remove","path":"/pstate/~0"}]`, `{"pstate":{"a":1,"l":[1,2,3],"m":{"k":"v"}}}`},
		{"replace", `[{"op":"replace","path":"/pstate/l/0","value":null}]`, `{"pstate":{"a":1,"l":[null,2,3],"m":{"k":"v"},"a/b":1,"~":2}}`},
		{"replace all", `[{"op":"replace","path":"/pstate","value":{}}]`, `{"pstate":{}}`},
		{"move", `[{"op":"move","from":"/pstate/a","path":"/pstate/m/k"}]`, `{"pstate":{"l":[1,2,3],"m":{"k":1},"a/b":1,"~":2}}`},
		{"copy", `[{"op":"copy","from":"/pstate/m","path":"/pstate/a"}]`, `{"pstate":{"a":{"k":"v"},"l":[1,2,3],"m":{"k":"v"},"a/b":1,"~":2}}`},
		{"test", `[{"op":"test","path":"/pstate/a","value":1},{"op":"remove","path":"/pstate/l"}]`, `{"pstate":{"a":1,"m":{"k":"v"},"a/b":1,"~":2}}`},
		{"failing test", `[{"op":"remove","path":"/pstate/l"},{"op":"test","path":"/pstate/a","value":2}]`, ""},
		{"add below nothing", `[{"op":"add","path":"/pstate/x/y","value":1}]`, ""},
		{"add below a number", `[{"op":"add","path":"/pstate/a/y","value":1}]`, ""},
		{"add past the end", `[{"op":"add","path":"/pstate/l/4","value":1}]`, ""},
		{"add without value", `[{"op":"add","path":"/pstate/x"}]`, ""},
		{"remove nothing", `[{"op":"remove","path":"/pstate/x"}]`, ""},
		{"replace nothing", `[{"op":"replace","path":"/pstate/x","value":1}]`, ""},
		{"unknown op", `[{"op":"clear","path":"/pstate/a"}]`, ""},
		{"no op", `[{"path":"/pstate/a"}]`, ""},
		{"no path", `[{"op":"remove"}]`, ""},
		{"path is a list", `[{"op":"remove","path":["pstate","a"]}]`, ""},
		{"not an object", `["remove"]`, ""},
		{"the whole document", `[{"op":"replace","path":"","value":{}}]`, ""},
		{"beside the state", `[{"op":"add","path":"/agent_policy","value":{}}]`, ""},
		{"beside, by prefix", `[{"op":"add","path":"/pstates","value":{}}]`, ""},
		{"beside, by two slashes", `[{"op":"add","path":"//x","value":{}}]`, ""},
		{"read beside the state", `[{"op":"copy","from":"/agent_policy","path":"/pstate/x"}]`, ""},
		{"remove the state", `[{"op":"remove","path":"/pstate"}]`, ""},
		{"state of another type", `[{"op":"replace","path":"/pstate","value":[]}]`, ""},
		{"too many", `[` + strings.Repeat(`{"op":"test","path":"/pstate/a","value":1},`, maxOps) + `{"op":"test","path":"/pstate/a","value":1}]`, ""},
		{"too large", `[{"op":"add","path":"/pstate/x","value":"` + strings.Repeat("x", maxState) + `"}]`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			old := &state{data: value(t, before).(ast.Object)}
			next, err := old.patch(value(t, c.ops).(*ast.Array))
			if got := value(t, before); old.data.Compare(got) != 0 {
				t.Errorf("the old version changed to %v", old.data)
			}
			if c.want == "" {
				if !errors.Is(err, errdefs.ErrInternal) || next != nil {
					t.Errorf("got %v %v, want an error", next, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := value(t, c.want); next.data.Compare(want) != 0 {
				t.Errorf("got %v, want %v", next.data, want)
			}
		})
	}
}

func value(t *testing.T, text string) ast.Value {
	t.Helper()
	var x any
	if err := json.Unmarshal([]byte(text), &x); err != nil {
		t.Fatal(err)
	}
	v, err := ast.InterfaceToValue(x)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSetsBecomeLists(t *testing.T) {
	r := load(t, `package agent_policy
Put := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/s", "value": {2, 1}}]}
Got { data.pstate.s == [1, 2] }`)
	for _, endpoint := range []string{"Put", "Got"} {
		if d, err := r.Allow(t.Context(), endpoint, JSON([]byte("{}"))); err != nil || !d.Allowed {
			t.Errorf("%s: %v %v", endpoint, d, err)
		}
	}
}
