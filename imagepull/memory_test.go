package imagepull_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/evidence/secret"
	"github.com/coffer-cc/coffer/imagepull"
	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
	"github.com/coffer-cc/coffer/imagepull/registry"
)

// memoryEnv tells the copy of this test that pulls what to pull.
const memoryEnv = "COFFER_TEST_PULL"

// pullOrder is the value of memoryEnv.
type pullOrder struct {
	Ref, CA, Dir string
	Key          []byte
}

// maxPullMemory is what the whole process may take, with its program and the
// certificates of the system, whatever the size of the image.
const maxPullMemory = 128 << 10 // KiB

// The memory of a pull does not follow the size of an image: three layers in
// work at the same time, one of each kind, go through a process of their own.
func TestPullMemory(t *testing.T) {
	if order := os.Getenv(memoryEnv); order != "" {
		pullAlone(t, order)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("mounting an overlay needs root")
	}
	r, keys := NewRegistry(t), NewKeys()
	noise := func(name, compression string, mib int) Layer {
		body := make([]byte, mib<<20)
		source := rand.NewChaCha8([32]byte{})
		source.Read(body)
		for i := 0; i < len(body); i += 2 {
			body[i] = 'x' // so that there is something to compress
		}
		return NewLayer(t, compression, File(name, string(body)))
	}
	r.Push(t, "app:1", noise("a", Gzip, 16), noise("b", Zstd, 16), noise("c", Plain, 100))
	options := r.Encrypt(t, "app:1", "app:enc", keys, "default/key/1")
	text, err := json.Marshal(pullOrder{Ref: r.Ref("app:enc"), CA: r.CA, Dir: t.TempDir(), Key: options.Key})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(withoutRace(t), "-test.run=^TestPullMemory$", "-test.v")
	cmd.Env = append(os.Environ(), memoryEnv+"="+string(text))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, rest, _ := strings.Cut(string(out), "VmHWM:")
	peak := 0
	if _, err := fmt.Sscanf(rest, "%d kB", &peak); err != nil || peak == 0 {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("peak %d KiB", peak)
	if peak > maxPullMemory {
		t.Errorf("the pull took %d KiB", peak)
	}
}

// withoutRace returns this test's own program, or one that is built anew when
// this one carries the race detector, which takes more memory than any pull.
func withoutRace(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
	}
	if settings["-race"] != "true" {
		return self
	}
	self = filepath.Join(t.TempDir(), "imagepull.test")
	cmd := exec.Command("go", "test", "-c", "-tags="+settings["-tags"], "-o", self, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build without the race detector: %v: %s", err, out)
	}
	return self
}

func pullAlone(t *testing.T, text string) {
	var order pullOrder
	if err := json.Unmarshal([]byte(text), &order); err != nil {
		t.Fatal(err)
	}
	keys := NewKeys()
	keys.Put("default/key/1", secret.Bytes(order.Key))
	p, err := imagepull.New(imagepull.Config{WorkDir: filepath.Join(order.Dir, "work"), Keys: keys, Registry: registry.Config{Roots: []string{order.CA}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Pull(t.Context(), order.Ref, "c1"); err != nil {
		t.Error(err)
	}
	if err := p.Close(context.Background()); err != nil {
		t.Error(err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout.Write(status)
}
