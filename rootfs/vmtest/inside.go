package vmtest

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// Where the host cannot reach the guest's vsock, the tests go to the guest:
//
//	kernel ── rdinit=/vmtest ──▶ PID 1: the test program
//	                               ├─ starts itself as the client
//	                               └─ becomes /init, so the agent is PID 1
//	client ── vsock loopback ──▶ agent
//
// The client's result goes to the console, where TestInside reads it.
const (
	insideProgram = "/vmtest"
	insideEnv     = "COFFER_VMTEST=inside"
	insideResult  = "vmtest: tests inside the guest ended with code "
)

// inside reports whether this process is the client in the guest.
func inside() bool {
	for _, v := range os.Environ() {
		if v == insideEnv {
			return true
		}
	}
	return false
}

// becomeAgent starts the client and turns PID 1 into the agent. It returns
// only when that fails.
func becomeAgent() error {
	_, err := os.StartProcess(insideProgram, append([]string{insideProgram}, os.Args[1:]...), &os.ProcAttr{
		Env:   []string{insideEnv, "TMPDIR=/tmp"},
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return fmt.Errorf("start client: %w", err)
	}
	return fmt.Errorf("become the agent: %w", unix.Exec("/init", []string{"/init"}, nil))
}

// runInside runs the tests as the client and powers the machine off.
func runInside(m *testing.M) {
	fmt.Printf("\n%s%d\n", insideResult, m.Run())
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func dialInside(context.Context) (net.Conn, error) {
	return vsock.Dial(vsock.Local, agentPort, nil)
}

// insideArgs are the words that follow "--" on the kernel command line; the
// kernel hands them to the first program.
func insideArgs(run string) []string {
	return strings.Fields("rdinit=" + insideProgram + " -- -test.v -test.run=" + run)
}
