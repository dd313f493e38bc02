// Package console is the debug console: a root shell in the guest, beside every
// policy. Whoever reaches its port or the serial line is in. So it is off unless
// the image's owner says otherwise, and the agent opens it after the
// configuration has been judged; nothing here asks again.
package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Shells are what is looked for, in this order. The first one comes with Kata's
// devkit extension, for images that have no shell.
func Shells() []string {
	return []string{"/run/kata-extensions/devkit/bin/devkit-sh", "/bin/bash", "/bin/sh"}
}

// maxSessions bounds what somebody who forgets to hang up can use.
const maxSessions = 8

// Console starts shells.
type Console struct {
	Shells []string // candidates, see Shells
}

// command is the first shell that there is, ready to be started.
func (c Console) command(args ...string) (*exec.Cmd, error) {
	for _, path := range c.Shells {
		if st, err := os.Stat(path); err == nil && st.Mode()&0o111 != 0 {
			cmd := exec.Command(path, args...)
			cmd.Env = []string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/", "TERM=linux"}
			cmd.Dir = "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			return cmd, nil
		}
	}
	return nil, fmt.Errorf("this guest has no shell, tried %v: %w", c.Shells, errdefs.ErrNotFound)
}

// Serve gives each connection of l a terminal with a shell until ctx ends. It
// closes l. A connection that closes takes its shell along.
func (c Console) Serve(ctx context.Context, l net.Listener) error {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	places := make(chan struct{}, maxSessions)
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("debug console: %w", err)
		}
		select {
		case places <- struct{}{}:
		default:
			fmt.Fprintf(conn, "debug console: %d sessions are open\r\n", maxSessions)
			conn.Close()
			continue
		}
		sessions.Go(func() {
			defer func() { <-places }()
			if err := c.session(ctx, conn); err != nil {
				slog.WarnContext(ctx, "debug console session failed", "error", err)
			}
		})
	}
}

// session runs one shell for one connection, and ends with the first of both.
func (c Console) session(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	cmd, err := c.command()
	if err != nil {
		fmt.Fprintf(conn, "debug console: %v\r\n", err)
		return err
	}
	master, slave, err := openTerminal()
	if err != nil {
		return err
	}
	defer master.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr.Setctty = true
	err = start(cmd)
	slave.Close()
	if err != nil {
		return err
	}
	slog.WarnContext(ctx, "debug console session", "shell", cmd.Path, "pid", cmd.Process.Pid)
	go func() {
		_, _ = io.Copy(master, conn)
		kill(cmd.Process.Pid)
		master.Close() // hangs up on what runs in the foreground
	}()
	_, _ = io.Copy(conn, master) // ends when nobody has the terminal open any more
	kill(cmd.Process.Pid)
	return ended(cmd.Wait())
}

// serialPause is between a shell that ended and the next one.
const serialPause = time.Second

// Serial keeps a shell on a serial line, the device at path, until ctx ends. A
// guest without a shell has no console, which is no reason to end it.
func (c Console) Serial(ctx context.Context, path string) error {
	for {
		err := c.once(ctx, path)
		if errdefs.IsNotFound(err) {
			slog.WarnContext(ctx, "debug console", "error", err)
			return nil
		}
		if err != nil {
			return fmt.Errorf("debug console: %w", err)
		}
		select {
		case <-time.After(serialPause):
		case <-ctx.Done():
			return nil
		}
	}
}

func (c Console) once(ctx context.Context, path string) error {
	cmd, err := c.command("-i")
	if err != nil {
		return err
	}
	// The agent must not get the line as its terminal, or a key press of the
	// host would be a signal.
	line, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer line.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = line, line, line
	if err := start(cmd); err != nil {
		return err
	}
	slog.WarnContext(ctx, "debug console session", "shell", cmd.Path, "pid", cmd.Process.Pid)
	stop := context.AfterFunc(ctx, func() { kill(cmd.Process.Pid) })
	defer stop()
	return ended(cmd.Wait())
}

// start starts a shell that memory pressure may end, unlike the agent.
func start(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start shell: %w", err)
	}
	_ = os.WriteFile("/proc/"+strconv.Itoa(cmd.Process.Pid)+"/oom_score_adj", []byte("0"), 0) // it may have ended
	return nil
}

// kill ends the shell and what is in its group.
func kill(pid int) { _ = unix.Kill(-pid, unix.SIGKILL) }

// ended drops what a shell returns: its last command may fail.
func ended(err error) error {
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return nil
	}
	return err
}
