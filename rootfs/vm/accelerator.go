package vm

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// probeTimeout is generous for KVM, which needs well under a second.
const probeTimeout = 5 * time.Second

var probed struct {
	sync.Mutex
	byKernel map[string]string
}

// probe says whether a guest with this kernel really starts under KVM. The
// presence of /dev/kvm says little: in a nested machine it may accept a guest
// and then refuse its registers or crawl. The guest has no initrd, so a kernel
// that comes up panics, and says so.
func probe(ctx context.Context, kernel string) string {
	probed.Lock()
	defer probed.Unlock()
	if found, ok := probed.byKernel[kernel]; ok {
		return found
	}
	found := "tcg"
	if kvmStarts(ctx, kernel) == nil {
		found = "kvm"
	}
	if probed.byKernel == nil {
		probed.byKernel = map[string]string{}
	}
	probed.byKernel[kernel] = found
	return found
}

func kvmStarts(ctx context.Context, kernel string) error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open /dev/kvm: %w", err)
	}
	f.Close()
	screen := newConsole(nil)
	args := append(cpuArgs("kvm"), "-machine", "q35", "-m", "256", "-nodefaults", "-no-user-config",
		"-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-append", strings.Join(baseWords, " "))
	p, err := startProcess(screen, qemuProgram, args...)
	if err != nil {
		return err
	}
	defer p.kill()
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return screen.wait(ctx, "Kernel panic", p.done)
}
