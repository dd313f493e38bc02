package policy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/open-policy-agent/opa/v1/ast"
)

func load(t testing.TB, text string) *Rego {
	t.Helper()
	r := New()
	if err := r.Replace(t.Context(), text); err != nil {
		t.Fatal(err)
	}
	return r
}

func loadFile(t testing.TB, path string) *Rego {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return load(t, string(text))
}

// container is the input of CreateContainerRequest as the wire package writes
// it, cut down to what the policies under test look at.
func container(id, name, args, env string) string {
	return fmt.Sprintf(`{"container_id":%q,"OCI":{"Hooks":null,"Linux":{"Devices":[]},
		"Annotations":{"sandbox-name":%q},"Process":{"Args":%s,"Env":%s}}}`, id, name, args, env)
}

func TestPod(t *testing.T) {
	const web, path = `["/web","-p","80"]`, `["PATH=/bin"]`
	steps := []struct {
		name, endpoint, input string
		allowed               bool
		reason                string
	}{
		{"exec before create", "ExecProcessRequest", `{"container_id":"c","process":{"Args":["ls","-l"]}}`, false, ""},
		{"other args", "CreateContainerRequest", container("c", "pod-web-1", `["/bin/sh"]`, path), false,
			`agent_policy:24: container 0 args ["/bin/sh"] agent_policy:24: container 1 args ["/bin/sh"]`},
		{"other name", "CreateContainerRequest", container("c", "pod-web-0", web, path), false, "container 1"},
		{"other env", "CreateContainerRequest", container("c", "pod-web-1", web, `["PATH=/bin","LD_PRELOAD=x"]`), false, ""},
		{"env by pattern", "CreateContainerRequest", container("c", "pod-web-1", web, `["PATH=/bin","POD_ADDRESS=10.1.2.3"]`), true, ""},
		{"again after a lost reply", "CreateContainerRequest", container("c", "pod-web-1", web, path), true, ""},
		{"same id for another container", "CreateContainerRequest", container("c", "pod-web-0", `["/pause"]`, `[]`), false, ""},
		{"exec", "ExecProcessRequest", `{"container_id":"c","process":{"Args":["ls","-l"]}}`, true, ""},
		{"other exec", "ExecProcessRequest", `{"container_id":"c","process":{"Args":["ls"]}}`, false, ""},
		{"exec elsewhere", "ExecProcessRequest", `{"container_id":"d","process":{"Args":["ls","-l"]}}`, false, ""},
		{"remove", "RemoveContainerRequest", `{"container_id":"c"}`, true, ""},
		{"remove twice", "RemoveContainerRequest", `{"container_id":"c"}`, false, ""},
		{"exec after remove", "ExecProcessRequest", `{"container_id":"c","process":{"Args":["ls","-l"]}}`, false, ""},
		{"default", "GuestDetailsRequest", `{}`, true, ""},
		{"neighbours", "AddARPNeighborsRequest", `{"neighbors":{"ARPNeighbors":[{"device":"eth0","flags":128}]}}`, true, ""},
		{"bad flag", "AddARPNeighborsRequest", `{"neighbors":{"ARPNeighbors":[{"device":"eth0","flags":1}]}}`, false, ""},
		{"bad device", "AddARPNeighborsRequest", `{"neighbors":{"ARPNeighbors":[{"device":"lo","flags":0}]}}`, false, ""},
		{"interface", "UpdateInterfaceRequest", `{"interface":{"raw_flags":128,"IPAddresses":[{"address":"10.0.0.1"}]}}`, true, ""},
		{"interface flag", "UpdateInterfaceRequest", `{"interface":{"raw_flags":129,"IPAddresses":[{"address":"10.0.0.1"}]}}`, false, ""},
		{"interface net", "UpdateInterfaceRequest", `{"interface":{"raw_flags":0,"IPAddresses":[{"address":"11.0.0.1"}]}}`, false, ""},
		{"file", "CopyFileRequest", `{"file_type":"Regular","path":"/run/kata-containers/shared/containers/a"}`, true, ""},
		{"file outside", "CopyFileRequest", `{"file_type":"Regular","path":"/run/kata-containers/shared/containers/../a"}`, false, ""},
		{"key the data lacks", "ReadStreamRequest", `{}`, false, ""},
	}
	r := loadFile(t, "testdata/pod.rego")
	for _, s := range steps { // in order: they share the state
		d, err := r.Allow(t.Context(), s.endpoint, JSON([]byte(s.input)))
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
		if d.Allowed != s.allowed || !strings.Contains(d.Reason, s.reason) {
			t.Errorf("%s: got %+v, want %v with %q", s.name, d, s.allowed, s.reason)
		}
	}
}

func TestAllowAll(t *testing.T) {
	r := loadFile(t, "testdata/allow-all.rego")
	for _, endpoint := range []string{"CreateContainerRequest", "SetPolicyRequest", "GetIPTablesRequest", "MemAgentMemcgConfig"} {
		if d, err := r.Allow(t.Context(), endpoint, JSON([]byte(`{}`))); err != nil || !d.Allowed {
			t.Errorf("%s: %+v %v", endpoint, d, err)
		}
	}
}

func TestNoPolicy(t *testing.T) {
	r := New()
	for _, endpoint := range []string{"CreateContainerRequest", "SetPolicyRequest", "GuestDetailsRequest"} {
		d, err := r.Allow(t.Context(), endpoint, JSON([]byte(`{}`)))
		want := endpoint + " is blocked by policy: no policy loaded"
		if err != nil || d.Allowed || d.Denial(endpoint) != want {
			t.Errorf("%s: got %+v %v, want %q", endpoint, d, err, want)
		}
	}
}

func TestResults(t *testing.T) {
	r := load(t, `package agent_policy
Yes := true
No := false
ObjYes := {"allowed": true}
ObjNull := {"allowed": true, "ops": null}
ObjNo := {"allowed": false, "ops": [{"op": "add", "path": "/pstate/x", "value": 1}]}
NoAllowed := {"ops": []}
StringAllowed := {"allowed": "yes"}
BadOps := {"allowed": true, "ops": {}}
FailingOp := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/y", "value": 1}, {"op": "remove", "path": "/pstate/nope"}]}
Text := "true"
Number := 1
Partial[x] { x := 1 }
Undefined { false }
Conflict = 1 { true }
Conflict = 2 { true }
BuiltinFails { to_number("x") == 1 }
Function(x) = x { true }
Touched { data.pstate.x }
Touched { data.pstate.y }
`)
	for _, c := range []struct {
		endpoint string
		allowed  bool
		class    error
	}{
		{"Yes", true, nil}, {"No", false, nil},
		{"ObjYes", true, nil}, {"ObjNull", true, nil}, {"ObjNo", false, nil},
		{"NoAllowed", false, errdefs.ErrInternal}, {"StringAllowed", false, errdefs.ErrInternal},
		{"BadOps", false, errdefs.ErrInternal}, {"FailingOp", false, errdefs.ErrInternal},
		{"Text", false, errdefs.ErrInternal}, {"Number", false, errdefs.ErrInternal},
		{"Partial", false, errdefs.ErrInternal}, {"Undefined", false, errdefs.ErrInternal},
		{"Conflict", false, errdefs.ErrInternal}, {"BuiltinFails", false, errdefs.ErrInternal},
		{"Function", false, errdefs.ErrInternal}, {"Missing", false, errdefs.ErrInternal},
		{"bad name", false, errdefs.ErrInvalidArgument}, {"", false, errdefs.ErrInvalidArgument},
		{"1x", false, errdefs.ErrInvalidArgument}, {strings.Repeat("x", 65), false, errdefs.ErrInvalidArgument},
		{"Touched", false, errdefs.ErrInternal}, // nothing above left a trace
	} {
		d, err := r.Allow(t.Context(), c.endpoint, JSON([]byte(`{}`)))
		if d.Allowed != c.allowed || !errors.Is(err, c.class) {
			t.Errorf("%s: got %v %v, want %v %v", c.endpoint, d, err, c.allowed, c.class)
		}
	}
}

func TestInputIsChecked(t *testing.T) {
	r := load(t, "package agent_policy\nX { not input.nothing }")
	for _, in := range []string{"", "null", "[]", "1", `"x"`, "{", `{"a":}`, `{} {}`, "{\"a\": " + strings.Repeat("[", 20000)} {
		if _, err := r.Allow(t.Context(), "X", JSON([]byte(in))); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%.20q: got %v", in, err)
		}
	}
}

func TestReplace(t *testing.T) {
	good := "package agent_policy\nX := true"
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "empty"},
		{"not Rego", "{{{", "line 1"},
		{"no package", "X := true", "package expected"},
		{"other package", "package other\nX := true", "package is not agent_policy"},
		{"longer package", "package agent_policy.x\nX := true", "package is not agent_policy"},
		{"unsafe variable", "package agent_policy\nX { y }", "line 2: rego_unsafe_var_error"},
		{"recursion", "package agent_policy\nX { Y }\nY { X }", "recursive"},
		{"unknown function", "package agent_policy\nX { nope(1) }", "undefined function"},
		{"long line", "package agent_policy\n# " + strings.Repeat("x", maxLine), "line 2 exceeds"},
		{"many lines", "package agent_policy\n" + strings.Repeat("\n", maxLines), "200000 lines"},
		{"large", "package agent_policy\n" + strings.Repeat("#\n", maxText/2), "bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := load(t, good)
			err := r.Replace(t.Context(), c.text)
			if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if d, err := r.Allow(t.Context(), "X", JSON([]byte("{}"))); err != nil || !d.Allowed {
				t.Errorf("the old policy is gone: %v %v", d, err)
			}
		})
	}
}

func TestReplaceClearsState(t *testing.T) {
	text := `package agent_policy
Set := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/x", "value": 1}]}
default Seen := false
Seen { data.pstate.x == 1 }`
	r := load(t, text)
	seen := func() bool {
		d, err := r.Allow(t.Context(), "Seen", JSON([]byte("{}")))
		if err != nil {
			t.Fatal(err)
		}
		return d.Allowed
	}
	if seen() {
		t.Error("state is not empty")
	}
	if _, err := r.Allow(t.Context(), "Set", JSON([]byte("{}"))); err != nil || !seen() {
		t.Errorf("state was not set: %v", err)
	}
	if err := r.Replace(t.Context(), text); err != nil || seen() {
		t.Errorf("state survived: %v", err)
	}
}

func TestLenient(t *testing.T) {
	r := load(t, "package agent_policy\ndefault AllowRequestsFailingPolicy := true\nNo := false\nText := \"x\"")
	for endpoint, want := range map[string]bool{"No": true, "Missing": true, "Text": false} {
		if d, err := r.Allow(t.Context(), endpoint, JSON([]byte("{}"))); d.Allowed != want || (err == nil) != want {
			t.Errorf("%s: got %v %v", endpoint, d, err)
		}
	}
	// The switch goes with its policy, also to one that says nothing of it.
	if err := r.Replace(t.Context(), "package agent_policy\nNo := false"); err != nil {
		t.Fatal(err)
	}
	if d, err := r.Allow(t.Context(), "No", JSON([]byte("{}"))); err != nil || d.Allowed {
		t.Errorf("still lenient: %v %v", d, err)
	}
	if d, err := r.Allow(t.Context(), "Missing", JSON([]byte("{}"))); err == nil || d.Allowed {
		t.Errorf("still lenient: %v %v", d, err)
	}
}

func TestDialects(t *testing.T) {
	for name, text := range map[string]string{
		"v0":             "package agent_policy\nX { 1 == 1 }",
		"v0 and imports": "package agent_policy\nimport future.keywords.if\nX if { 1 == 1 }",
		"v1":             "package agent_policy\nX if { 1 == 1 }",
		"v1 by import":   "package agent_policy\nimport rego.v1\nX if { 1 == 1 }",
	} {
		if d, err := load(t, text).Allow(t.Context(), "X", JSON([]byte("{}"))); err != nil || !d.Allowed {
			t.Errorf("%s: %v %v", name, d, err)
		}
	}
}

// spinning counts to the limit of a range, squared: minutes of work.
const spinning = `package agent_policy
X { some_pair }
some_pair { a := numbers.range(1, 1000000)[_]; b := numbers.range(1, 1000000)[_]; a + b == 0 }`

func TestEvaluationIsBounded(t *testing.T) {
	r := load(t, spinning)
	r.budget = 50 * time.Millisecond
	d, err := r.Allow(t.Context(), "X", JSON([]byte("{}")))
	if !errors.Is(err, context.DeadlineExceeded) || d.Allowed {
		t.Errorf("got %v %v", d, err)
	}
}

func TestWaitingIsBounded(t *testing.T) {
	r := load(t, "package agent_policy\nX := true")
	if err := r.lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Allow(ctx, "X", JSON([]byte("{}"))); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := r.Replace(ctx, "package agent_policy\nY := true"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	r.unlock()
	if d, err := r.Allow(t.Context(), "X", JSON([]byte("{}"))); err != nil || !d.Allowed {
		t.Errorf("got %v %v", d, err)
	}
}

func TestConcurrentCallsShareState(t *testing.T) {
	r := load(t, `package agent_policy
default Take := false
Take := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/taken", "value": true}]} { not data.pstate.taken }`)
	var wg sync.WaitGroup
	won := make(chan bool, 16)
	for range cap(won) {
		wg.Go(func() {
			d, err := r.Allow(t.Context(), "Take", JSON([]byte("{}")))
			if err != nil {
				t.Error(err)
			}
			won <- d.Allowed
		})
	}
	wg.Wait()
	close(won)
	n := 0
	for w := range won {
		if w {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d calls were allowed, want 1", n)
	}
}

// FuzzInput feeds what the host chooses to rules that look at all of it.
func FuzzInput(f *testing.F) {
	f.Add([]byte(`{}`))
	f.Add([]byte(container("c", "pod-web-1", `["/web"]`, `[]`)))
	f.Add([]byte(`{"a":[1,null,{"b":1e400}],"container_id":"/~1","a":2}`))
	r := load(f, `package agent_policy
default X := false
X { walk(input, [_, v]); print(v); v == input }
Y := {"allowed": true, "ops": [{"op": "add", "path": concat("/", ["/pstate", input.container_id]), "value": input}]}`)
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, endpoint := range []string{"X", "Y"} {
			_, _ = r.Allow(t.Context(), endpoint, JSON(in))
		}
		if _, ok := field(r.rules.state.data, stateKey).(ast.Object); !ok {
			t.Error("state is damaged")
		}
	})
}

// FuzzPolicy compiles what an owner, or a host that may set policies, sends.
func FuzzPolicy(f *testing.F) {
	for _, path := range []string{"testdata/pod.rego", "testdata/allow-all.rego"} {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("package agent_policy\nX { http.send({}) }")
	f.Fuzz(func(t *testing.T, text string) {
		if err := New().Replace(t.Context(), text); err != nil && !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Error(err)
		}
	})
}

func BenchmarkAllow(b *testing.B) {
	r := loadFile(b, "testdata/pod.rego")
	write := []byte(`{"container_id":"c","data":[` + strings.Repeat("65,", 32<<10) + `65]}`)
	for name, c := range map[string]struct {
		endpoint string
		input    []byte
	}{
		"default":   {"GuestDetailsRequest", []byte(`{}`)},
		"container": {"CreateContainerRequest", []byte(container("c", "pod-web-1", `["/web","-p","80"]`, `["PATH=/bin"]`))},
		"32KiB":     {"GuestDetailsRequest", write},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if d, err := r.Allow(b.Context(), c.endpoint, JSON(c.input)); err != nil || !d.Allowed {
					b.Fatal(d, err)
				}
			}
		})
	}
}

// A question of this agent's own is answered by policies that know it. Those
// that do not are as good as before.
func TestAllowUnlessRuled(t *testing.T) {
	pod, err := os.ReadFile("testdata/pod.rego")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, rule     string
		allowed, fails bool
	}{
		{"unknown", "", true, false},
		{"true", "VerifiedImage := true", true, false},
		{"default", "default VerifiedImage := false", false, false},
		{"by input", `VerifiedImage { input.x == "y" }`, true, false},
		{"no value", `VerifiedImage { input.x == "z" }`, false, true},
		{"member of a value", "VerifiedImage.allowed := false", false, false},
		{"longer name", "VerifiedImages := false", true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := load(t, string(pod)+"\n"+tc.rule+"\n")
			d, err := r.AllowUnlessRuled(t.Context(), "VerifiedImage", JSON([]byte(`{"x":"y"}`)))
			if d.Allowed != tc.allowed || (err != nil) != tc.fails {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
	if d, err := New().AllowUnlessRuled(t.Context(), "VerifiedImage", JSON([]byte("{}"))); d.Allowed || err != nil {
		t.Errorf("without a policy: %+v, %v", d, err)
	}
}
