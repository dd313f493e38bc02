package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestUsage(t *testing.T) {
	t.Setenv("COFFER_ADDRESS", "")
	tests := []struct {
		name string
		args []string
		code int
		want string
	}{
		{"unknown command", []string{"frobnicate"}, 2, "unknown command"},
		{"unknown flag", []string{"ps", "--frob"}, 2, "unknown flag"},
		{"too many words", []string{"ps", "x"}, 2, "unknown command"},
		{"too few words", []string{"run"}, 2, "requires at least 1 arg"},
		{"no address", []string{"ps"}, 2, "give --address or set COFFER_ADDRESS"},
		{"bad address", []string{"--address", "tcp://x:1", "ps"}, 2, "unknown scheme"},
		{"nobody there", []string{"--address", "unix:///nowhere/a.sock", "ps"}, 5, "connect to unix:///nowhere/a.sock"},
		{"bad output", []string{"-o", "xml", "ps"}, 2, "must be table or json"},
		{"negative timeout", []string{"--timeout", "-1s", "ps"}, 2, "must not be negative"},
		{"bad name", []string{"run", "--name", "../x", "img"}, 2, "--name: character"},
		{"bad env", []string{"run", "-e", "A", "img"}, 2, "must be NAME=VALUE"},
		{"bad user", []string{"run", "-u", "root", "img"}, 2, "must be numbers"},
		{"detached input", []string{"run", "-d", "-i", "img"}, 2, "exclude each other"},
		{"spec is missing", []string{"run", "--spec", "/nowhere.json", "img"}, 4, "/nowhere.json"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctl(t, nil, tt.args...).want(t, tt.code, "", tt.want)
		})
	}
}

func TestAddressFromEnvironment(t *testing.T) {
	_, addr := serve(t)
	t.Setenv("COFFER_ADDRESS", addr)
	if r := ctl(t, nil, "ping"); r.code != 0 || !strings.Contains(r.out, "SERVING") {
		t.Errorf("%+v", r)
	}
}

func TestPingWaits(t *testing.T) {
	if r := ctl(t, nil, "--address", "unix://"+t.TempDir()+"/a.sock", "ping", "--wait", "150ms"); r.code != 5 {
		t.Errorf("%+v", r)
	}
	_, addr := serve(t)
	r := ctl(t, nil, "--address", addr, "-o", "json", "ping", "--wait", "1s", "-c", "3")
	var pongs []pong
	if err := json.Unmarshal([]byte(r.out), &pongs); err != nil || len(pongs) != 3 || pongs[0].Status != "SERVING" {
		t.Errorf("%+v: %v", r, err)
	}
}

func TestInfo(t *testing.T) {
	f, addr := serve(t)
	r := ctl(t, nil, "--address", addr, "info")
	for _, want := range []string{"9.9.9", "SERVING", "local image_guest_pull", "134217728"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("%q is missing in %s", want, r.out)
		}
	}
	f.denied["GuestDetailsRequest"] = true
	r = ctl(t, nil, "--address", addr, "info")
	if r.code != 0 || !strings.Contains(r.out, "GuestDetailsRequest is blocked by policy") {
		t.Errorf("%+v", r)
	}
}

func TestRPC(t *testing.T) {
	f, addr := serve(t)
	file := filepath.Join(t.TempDir(), "req.json")
	if err := os.WriteFile(file, []byte(`{"mem_block_size": true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	reply := `{
  "mem_block_size_bytes": "134217728",
  "agent_details": {
    "storage_handlers": [
      "local",
      "image_guest_pull"
    ],
    "supports_seccomp": true
  }
}
`
	ctl(t, nil, "--address", addr, "rpc", "GetGuestDetails", "@"+file).want(t, 0, reply, "")
	ctl(t, strings.NewReader(`{}`), "--address", addr, "rpc", "getguestdetails", "-").want(t, 0, reply, "")
	ctl(t, nil, "--address", addr, "rpc", "GetGuestDetails").want(t, 0, reply, "")
	ctl(t, nil, "--address", addr, "rpc", "Version").want(t, 0, "{\n  \"agent_version\": \"9.9.9\"\n}\n", "")
	ctl(t, nil, "--address", addr, "rpc", "StartContainer", `{"container_id": "../x"}`).want(t, 1, "", "StartContainer: container_id: character")
	ctl(t, nil, "--address", addr, "rpc", "WaitProcess", `{"container_id": "web"}`).want(t, 4, "", "invalid container id")
	ctl(t, nil, "--address", addr, "rpc", "PauseContainer", `{"container_id": "web"}`).want(t, 6, "", "PauseContainer")
	ctl(t, nil, "--address", addr, "rpc", "StartContainer", `{"containr": 1}`).want(t, 2, "", "the request is no StartContainerRequest")
	ctl(t, nil, "--address", addr, "rpc", "StartContainer", "@/nowhere.json").want(t, 4, "", "/nowhere.json")
	ctl(t, nil, "--address", addr, "rpc", "Frobnicate").want(t, 2, "", "no method")
	ctl(t, nil, "rpc").want(t, 2, "", "METHOD or --list")
	f.denied["GuestDetailsRequest"] = true
	ctl(t, nil, "--address", addr, "rpc", "GetGuestDetails").want(t, 3, "", "blocked by policy")
}

func TestRPCKnowsEveryMethod(t *testing.T) {
	r := ctl(t, nil, "-o", "json", "rpc", "--list")
	var list []map[string]string
	if err := json.Unmarshal([]byte(r.out), &list); err != nil || len(list) != 44 {
		t.Fatalf("%d methods, %v", len(list), err)
	}
	for _, m := range list {
		if r := ctl(t, nil, "rpc", "--template", m["Method"]); r.code != 0 || !json.Valid([]byte(r.out)) {
			t.Errorf("%s: %+v", m["Method"], r)
		}
	}
}

func TestCompletion(t *testing.T) {
	_, addr := serve(t)
	ctl(t, nil, "--address", addr, "run", "-d", "--name", "web", "img", "--", "sleep")
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := ctl(t, nil, "completion", shell); r.code != 0 || r.out == "" {
			t.Errorf("%s: %+v", shell, r)
		}
	}
	if r := ctl(t, nil, "--address", addr, "__complete", "stop", ""); !strings.HasPrefix(r.out, "web\n") {
		t.Errorf("containers: %+v", r)
	}
	if r := ctl(t, nil, "__complete", "rpc", "Upd"); !strings.Contains(r.out, "UpdateRoutes\n") {
		t.Errorf("methods: %+v", r)
	}
}

func TestParseMetrics(t *testing.T) {
	text := `# HELP coffer_containers about
coffer_containers{id="a",image="x\"y\\z\n"} 1
coffer_containers{id="b"} 0 1700000000
coffer_containers_total 5
coffer_containers 2.5
coffer_containers{id="unterminated} 1
coffer_containers{id="c"} many
other{coffer_containers="1"} 1
`
	got := parseMetrics(text, "coffer_containers")
	want := []sample{
		{map[string]string{"id": "a", "image": "x\"y\\z\n"}, 1},
		{map[string]string{"id": "b"}, 0},
		{map[string]string{}, 2.5},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func FuzzParseMetrics(f *testing.F) {
	f.Add(`coffer_containers{id="a",image="x\"y"} 1`)
	f.Add("coffer_containers{a=\"\\")
	f.Fuzz(func(t *testing.T, text string) { parseMetrics(text, "coffer_containers") })
}

func TestInitdata(t *testing.T) {
	dir := t.TempDir()
	texts := map[string]string{
		"policy.rego": "package agent_policy\ndefault X := \"it's '''quoted'''\\n\"\n",
		"aa.toml":     "[token_configs]\n[token_configs.kbs]\nurl = 'http://x'\n",
		"odd":         "tab\t, bell\a, CR\r\n, quote\", ends with '",
	}
	args := []string{"initdata", "build"}
	for name, text := range texts {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--add", name+"="+file)
	}
	digests := map[string]bool{}
	for _, format := range []string{"toml", "disk", "annotation"} {
		out := filepath.Join(dir, "initdata."+format)
		r := ctl(t, nil, append(args, "--format", format, "--out", out)...)
		if r.code != 0 {
			t.Fatalf("%s: %+v", format, r)
		}
		var shown struct {
			Digest string
			Data   map[string]string
		}
		r = ctl(t, nil, "-o", "json", "initdata", "show", out)
		if err := json.Unmarshal([]byte(r.out), &shown); err != nil {
			t.Fatalf("%s: %+v: %v", format, r, err)
		}
		digests[shown.Digest] = true
		if !reflect.DeepEqual(shown.Data, texts) {
			t.Errorf("%s: got %q", format, shown.Data)
		}
	}
	if len(digests) != 1 {
		t.Errorf("the digest depends on the format: %v", digests)
	}
	disk := filepath.Join(dir, "initdata.disk")
	ctl(t, nil, "initdata", "show", "--entry", "odd", disk).want(t, 0, texts["odd"], "")
	ctl(t, nil, "initdata", "show", "--entry", "none", disk).want(t, 1, "", "no entry")
	ctl(t, nil, "initdata", "show", filepath.Join(dir, "odd")).want(t, 1, "", "odd")
	ctl(t, nil, "initdata", "build", "--out", disk).want(t, 2, "", "would be empty")
	ctl(t, nil, args...).want(t, 2, "", "--out is missing")
	ctl(t, nil, append(args, "--out", disk, "--format", "x")...).want(t, 2, "", "must be toml, disk or annotation")
	ctl(t, nil, append(args, "--out", disk, "--algorithm", "md5")...).want(t, 1, "", "algorithm is not sha256")
}
