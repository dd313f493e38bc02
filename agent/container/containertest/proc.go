package containertest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/container"
)

// proc is one plain process, the leader of its own session.
type proc struct {
	cmd     *exec.Cmd
	console *os.File
}

func (j *Jail) start(cmd *exec.Cmd, io container.Stdio) (*proc, error) {
	p := &proc{cmd: cmd}
	if !io.Terminal {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = io.Stdin, io.Stdout, io.Stderr
		return p, cmd.Start()
	}
	master, slave, err := openTerminal()
	if err != nil {
		return nil, err
	}
	defer slave.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr.Setctty = true
	if err := cmd.Start(); err != nil {
		master.Close()
		return nil, err
	}
	p.console = master
	return p, nil
}

func openTerminal() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open terminal: %w", err)
	}
	master = os.NewFile(uintptr(fd), "console")
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open terminal: %w", err), master.Close())
	}
	return master, slave, nil
}

func (p *proc) Pid() int { return p.cmd.Process.Pid }

func (p *proc) Signal(sig unix.Signal) error { return p.cmd.Process.Signal(sig) }

func (p *proc) Console() *os.File { return p.console }

func (p *proc) Wait() (int, error) {
	err := p.cmd.Wait()
	if p.cmd.ProcessState == nil {
		return 0, err
	}
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return p.cmd.ProcessState.ExitCode(), nil
}
