package vm

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// A process runs in its own group, so that killing it leaves no child behind,
// and dies with the program that started it, however that one ends.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once err is set
	err  error
}

func startProcess(out io.Writer, program string, args ...string) (*process, error) {
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(program), err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		if err := cmd.Wait(); err != nil {
			p.err = fmt.Errorf("run %s: %w", filepath.Base(program), err)
		}
		close(p.done)
	}()
	return p, nil
}

// kill ends the group and waits until the process is gone.
func (p *process) kill() {
	select {
	case <-p.done:
	default:
		if err := unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL); errors.Is(err, unix.ESRCH) {
			p.cmd.Process.Kill()
		}
		<-p.done
	}
}
