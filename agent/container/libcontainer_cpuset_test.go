package container

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRefreshTree works on a tree as a cgroup v1 guest has it, before and after
// two processors are plugged in.
func TestRefreshTree(t *testing.T) {
	for _, tc := range []struct {
		name, own string
		want      map[string]string
	}{
		{"own set", "1-2", map[string]string{"": "0-3", "kubepods": "0-3", "kubepods/pod1": "0-3", "kubepods/pod1/c1": "1-2", "kubepods/pod2": "0-1"}},
		{"all", "", map[string]string{"": "0-3", "kubepods": "0-3", "kubepods/pod1": "0-3", "kubepods/pod1/c1": "0-3", "kubepods/pod2": "0-1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "cpuset")
			for dir := range tc.want {
				path := filepath.Join(root, dir)
				if err := os.MkdirAll(path, 0o755); err != nil {
					t.Fatal(err)
				}
				text := "0-1"
				if dir == "" {
					text = "0-3"
				}
				if err := os.WriteFile(filepath.Join(path, cpusFile), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := refreshTree(filepath.Join(root, "kubepods/pod1/c1"), tc.own); err != nil {
				t.Fatal(err)
			}
			for dir, want := range tc.want {
				if got, _ := os.ReadFile(filepath.Join(root, dir, cpusFile)); string(got) != want {
					t.Errorf("%q has %s, want %s", dir, got, want)
				}
			}
		})
	}
	if err := refreshTree(filepath.Join(t.TempDir(), "gone"), "0"); err != nil {
		t.Errorf("a cgroup that is gone: %v", err)
	}
	if err := refreshTree("", "0"); err != nil {
		t.Errorf("no cpuset controller: %v", err)
	}
}
