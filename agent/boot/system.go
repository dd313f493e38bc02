package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// hostname takes the first word of /etc/hostname. The pod gets its own name, in
// a namespace of its own, from CreateSandbox.
func (b bootstrap) hostname(context.Context) error {
	name := "localhost"
	text, err := os.ReadFile(b.path("/etc/hostname"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read host name: %w", err)
	}
	if words := strings.Fields(string(text)); len(words) > 0 {
		name = words[0]
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set host name %q: %w", name, err)
	}
	return nil
}

// maxFiles is what containers inherit as their limit of open files when their
// spec sets none; the kernel's own default of 4096 is too low for databases.
const maxFiles = 1 << 20

// protect takes the agent's memory, which holds keys, out of reach: no core dump
// on a crash, no ptrace and no /proc/PID/mem for whoever is not root in the
// guest. A container's init is a new program and becomes dumpable again by
// execve(2), so nothing changes for it.
func protect(context.Context) error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("limit core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid dumps: %w", err)
	}
	return nil
}

// habits are what a service manager would have set. Programs that the agent runs
// are found by PATH, and PID 1 starts the agent without an environment.
func habits(ctx context.Context) error {
	unix.Umask(0o022)
	if err := os.Setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin"); err != nil {
		return fmt.Errorf("set PATH: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: maxFiles, Max: maxFiles}); err != nil {
		slog.WarnContext(ctx, "limit of open files not raised", "error", err)
	}
	return nil
}
