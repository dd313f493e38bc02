package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
)

const (
	// maxRules bounds what is read of the tables, so that it fits into a reply.
	maxRules = 3 << 20
	// iptablesTime bounds one program. Restoring waits for the lock that other
	// programs hold for five seconds, as the reference agent does.
	iptablesTime = 30 * time.Second
	lockSeconds  = "5"
	// maxComplaint bounds what of a program's words goes into an error.
	maxComplaint = 1024
)

// IPTables reads and writes packet filters in the text form of iptables-save.
// That form belongs to the iptables programs, which speak to the kernel through
// nf_tables or through its older interface, so they do the work: they are
// looked for in Dirs, under the names that stand for the image's choice first.
// An image without them, as the initrd of this tree is, answers
// ErrNotImplemented.
type IPTables struct {
	Dirs []string // "/usr/sbin" and "/sbin" when nil
}

// family of programs that work on the same rules. A host that reads with one
// and writes with another would see neither.
type family struct{ save, restore string }

func (t IPTables) family(v6 bool) (family, error) {
	dirs := t.Dirs
	if dirs == nil {
		dirs = []string{"/usr/sbin", "/sbin"}
	}
	name := "iptables"
	if v6 {
		name = "ip6tables"
	}
	for _, kind := range []string{"", "-nft", "-legacy"} {
		for _, dir := range dirs {
			base := filepath.Join(dir, name+kind)
			f := family{base + "-save", base + "-restore"}
			if isProgram(f.save) && isProgram(f.restore) {
				return f, nil
			}
		}
	}
	return family{}, fmt.Errorf("this guest image has no %s-save and %s-restore in %s: %w", name, name, strings.Join(dirs, ", "), errdefs.ErrNotImplemented)
}

func isProgram(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// Save returns all tables of the family.
func (t IPTables) Save(ctx context.Context, v6 bool) ([]byte, error) {
	f, err := t.family(v6)
	if err != nil {
		return nil, fmt.Errorf("read iptables: %w", err)
	}
	out, err := program{path: f.save}.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("read iptables: %w", err)
	}
	return out, nil
}

// Restore replaces the tables that rules names and returns what the program
// said. Programs commit table by table and find some mistakes only then, so the
// rules are tried first in a network namespace that ends with the trial: a text
// with a mistake in its last table changes none.
func (t IPTables) Restore(ctx context.Context, v6 bool, rules []byte) ([]byte, error) {
	f, err := t.family(v6)
	if err != nil {
		return nil, fmt.Errorf("write iptables: %w", err)
	}
	if len(bytes.TrimSpace(rules)) == 0 || bytes.IndexByte(rules, 0) >= 0 {
		return nil, fmt.Errorf("write iptables: data: is no text of rules: %w", errdefs.ErrInvalidArgument)
	}
	// Without the end of a table the program takes the rules and forgets them.
	if !bytes.Contains(append([]byte("\n"), rules...), []byte("\nCOMMIT")) {
		return nil, fmt.Errorf("write iptables: data: no table ends with COMMIT: %w", errdefs.ErrInvalidArgument)
	}
	trial := program{path: f.restore, args: []string{"--wait", lockSeconds}, input: rules, apart: true}
	if _, err := trial.run(ctx); err != nil {
		return nil, fmt.Errorf("write iptables: data: %w", err)
	}
	real := trial
	real.apart = false
	out, err := real.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("write iptables: data: %w", err)
	}
	return out, nil
}

// program is one run of an iptables program.
type program struct {
	path  string
	args  []string
	input []byte
	apart bool // in a network namespace of its own
}

// run starts it with nothing from our environment, and returns its output.
func (p program) run(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, iptablesTime)
	defer cancel()
	name := filepath.Base(p.path)
	cmd := exec.CommandContext(ctx, p.path, p.args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Stdin = bytes.NewReader(p.input)
	if p.apart {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	}
	out, complaint := &limited{limit: maxRules}, &limited{limit: maxComplaint, cut: true}
	cmd.Stdout, cmd.Stderr = out, complaint
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case err == nil:
		return out.buf.Bytes(), nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("run %s: %w", name, ctx.Err())
	case out.full:
		return nil, fmt.Errorf("%s prints more than %d bytes: %w", name, maxRules, errdefs.ErrResourceExhausted)
	}
	return nil, fmt.Errorf("run %s: %w: %s: %w", name, err, strings.TrimSpace(complaint.buf.String()), classOf(err))
}

// classOf tells a busy lock and rules that make no sense from the rest by the
// exit code (include/xtables.h: 2 wrong parameters, 4 lack of a resource). The
// restore programs exit with 1 at a line they cannot parse or apply.
func classOf(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return errdefs.ErrUnavailable
	}
	switch exit.ExitCode() {
	case 1, 2:
		return errdefs.ErrInvalidArgument
	case 4:
		return errdefs.ErrUnavailable
	}
	return errdefs.ErrFailedPrecondition
}

// limited keeps the first bytes that are written to it. What comes then is an
// error, or dropped when cut is set.
type limited struct {
	buf   bytes.Buffer
	limit int
	cut   bool
	full  bool // more came than fits
}

func (l *limited) Write(p []byte) (int, error) {
	room := l.limit - l.buf.Len()
	if len(p) <= room {
		return l.buf.Write(p)
	}
	l.buf.Write(p[:room])
	l.full = true
	if l.cut {
		return len(p), nil
	}
	return room, io.ErrShortWrite
}
