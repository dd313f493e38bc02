package network

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// programs makes a directory in which the names of one kind of iptables lead to
// this machine's programs of another.
func programs(t *testing.T, kind, real string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"iptables", "ip6tables"} {
		for _, verb := range []string{"-save", "-restore"} {
			path, err := exec.LookPath(name + real + verb)
			if err != nil {
				t.Skip(err)
			}
			if err := os.Symlink(path, filepath.Join(dir, name+kind+verb)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// natRules have a second table, since trying rules makes the tables they name.
const natRules = `*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:MESH - [0:0]
-A PREROUTING -p tcp -j MESH
-A MESH -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 15001
COMMIT
`

func TestIPTables(t *testing.T) {
	for _, tc := range []struct{ name, kind, real string }{
		{"the image's choice", "", "-nft"},
		{"nft", "-nft", "-nft"},
		{"legacy", "-legacy", "-legacy"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			newNamespace(t, nil) // the programs are started by this thread
			empty := t.TempDir()
			ip := IPTables{Dirs: []string{empty, programs(t, tc.kind, tc.real)}}
			for _, v6 := range []bool{false, true} {
				restoreAndSave(t, ip, v6)
			}
		})
	}
}

func restoreAndSave(t *testing.T, ip IPTables, v6 bool) {
	t.Helper()
	if _, err := ip.Restore(t.Context(), v6, []byte(natRules)); err != nil {
		if !errdefs.IsInvalidArgument(err) {
			t.Skip("the kernel lacks what these programs need:", err)
		}
		t.Fatal(err)
	}
	before, err := ip.Save(t.Context(), v6)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{":MESH - [0:0]", "-A MESH -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 15001", "COMMIT"} {
		if !strings.Contains(string(before), line+"\n") {
			t.Errorf("v6 %v: %q is missing in\n%s", v6, line, before)
		}
	}
	// The mistake stands in the last table, and the first is not changed.
	bad := strings.Replace(natRules, "8080", "9090", 1) + "*filter\n-A NOWHERE -j ACCEPT\nCOMMIT\n"
	_, err = ip.Restore(t.Context(), v6, []byte(bad))
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "data: ") {
		t.Errorf("v6 %v: bad rules: %v", v6, err)
	}
	after, err := ip.Save(t.Context(), v6)
	if err != nil || rulesOf(after) != rulesOf(before) {
		t.Errorf("v6 %v: bad rules left\n%s, %v", v6, after, err)
	}
}

// rulesOf leaves out the comments, which carry the time.
func rulesOf(saved []byte) string {
	var kept []string
	for line := range strings.Lines(string(saved)) {
		if !strings.HasPrefix(line, "#") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

func TestIPTablesAreMissing(t *testing.T) {
	dir := t.TempDir()
	ip := IPTables{Dirs: []string{dir}}
	_, err := ip.Save(t.Context(), false)
	if !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "image has no iptables-save") {
		t.Errorf("save: %v", err)
	}
	if _, err := ip.Restore(t.Context(), true, []byte(natRules)); !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "ip6tables-restore") {
		t.Errorf("restore: %v", err)
	}
	// One of a pair is none.
	script(t, filepath.Join(dir, "iptables-save"), "exit 0")
	if _, err := ip.Save(t.Context(), false); !errdefs.IsNotImplemented(err) {
		t.Errorf("half a pair: %v", err)
	}
}

func script(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestIPTablesRefuse(t *testing.T) {
	dir := t.TempDir()
	script(t, filepath.Join(dir, "iptables-save"), "exit 0")
	script(t, filepath.Join(dir, "iptables-restore"), "touch "+dir+"/ran")
	ip := IPTables{Dirs: []string{dir}}
	for name, rules := range map[string]string{
		"nothing": "", "white space": " \n", "zero byte": "*nat\n\x00\nCOMMIT\n", "no end": "*nat\n:INPUT ACCEPT\n",
	} {
		if _, err := ip.Restore(t.Context(), false, []byte(rules)); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "data: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(dir + "/ran"); err == nil {
		t.Error("the program was started")
	}
}

// Programs that misbehave are cut, and their words are bounded.
func TestIPTablesBounds(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		is         func(error) bool
	}{
		{"endless output", "exec cat /dev/zero", errdefs.IsResourceExhausted},
		{"long complaint", "head -c 100000 /dev/zero | tr '\\0' x >&2; exit 2", errdefs.IsInvalidArgument},
		{"busy lock", "exit 4", errdefs.IsUnavailable},
		{"no kernel support", "exit 3", errdefs.IsFailedPrecondition},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			script(t, filepath.Join(dir, "iptables-save"), tc.text)
			script(t, filepath.Join(dir, "iptables-restore"), "exit 0")
			_, err := IPTables{Dirs: []string{dir}}.Save(t.Context(), false)
			if err == nil || !tc.is(err) || len(err.Error()) > 2*maxComplaint {
				t.Errorf("got %.200v", err)
			}
		})
	}
	dir := t.TempDir()
	script(t, filepath.Join(dir, "iptables-save"), "echo $$ > "+dir+"/pid; exec sleep 1000")
	script(t, filepath.Join(dir, "iptables-restore"), "exit 0")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(dir + "/pid"); err == nil {
				cancel()
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if _, err := (IPTables{Dirs: []string{dir}}).Save(ctx, false); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
