package vmtest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/rootfs/image"
	"github.com/coffer-cc/coffer/rootfs/vm"
)

// signerDir is where the kernel module of tests looks for its signer.
const signerDir = "/usr/lib/coffer-test"

// platformParts are the module of the module folder and its signer, built once
// per test process. Both fail where the headers of the guest's kernel cannot be
// had: without them nothing would show that the agent finds a real kernel's
// interfaces.
var platformParts = sync.OnceValues(func() (parts struct{ module, signer string }, err error) {
	b, err := prepare()
	if err != nil {
		return parts, err
	}
	ctx := context.Background()
	if parts.module, err = b.store.BuildModule(ctx, filepath.Join(b.store.Root, "rootfs/vmtest/module")); err != nil {
		return parts, err
	}
	parts.signer = filepath.Join(b.dir, "signer")
	build := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", parts.signer, "./rootfs/vmtest/signertest")
	build.Dir = b.store.Root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return parts, fmt.Errorf("build signer: %w: %s", err, out)
	}
	return parts, nil
})

// onPlatform is a machine whose kernel has the platform. The agent is the usual
// one; the module and what it answers are the image's.
func onPlatform(t testing.TB, m *evidencetest.Machine) vm.Config {
	t.Helper()
	parts, err := platformParts()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "machine.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return Variant{
		ModuleFiles: []string{parts.module},
		Config:      "testdata/platform.toml",
		Add:         []image.Addition{{Source: parts.signer, Target: signerDir + "/signer"}, {Source: file, Target: signerDir + "/machine.json"}},
	}.Build(t)
}
