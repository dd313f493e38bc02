package main

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// checkTerminal refuses -i -t where no terminal could carry it.
func (a *app) checkTerminal(stdin, tty bool) error {
	if stdin && tty && terminal(a.in) < 0 {
		return usagef("--tty with --interactive needs a terminal on stdin")
	}
	return nil
}

// terminal is the descriptor behind a stream, or -1 when it is no terminal.
func terminal(stream any) int {
	if f, ok := stream.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return int(f.Fd())
	}
	return -1
}

// startTerminal puts our terminal into raw mode and keeps the size of the
// process's terminal equal to ours. Without a terminal on either side it does
// nothing.
func (s *session) startTerminal(ctx context.Context) (restore func(), err error) {
	if !s.tty {
		return func() {}, nil
	}
	stop := s.followSize(ctx)
	fd := terminal(s.in)
	if fd < 0 || !s.stdin {
		return stop, nil
	}
	before, err := term.MakeRaw(fd)
	if err != nil {
		stop()
		return nil, err
	}
	return func() {
		stop()
		_ = term.Restore(fd, before) // nothing is left to do about a failure
	}, nil
}

func (s *session) followSize(ctx context.Context) (stop func()) {
	fd := terminal(s.out)
	if fd < 0 {
		return func() {}
	}
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGWINCH)
	ch <- unix.SIGWINCH // the size at the start
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-ch:
				s.resize(ctx, fd)
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		close(done)
	}
}

// resize is best effort: a wrong size is a nuisance, not a failure.
func (s *session) resize(ctx context.Context, fd int) {
	cols, rows, err := term.GetSize(fd)
	if err != nil {
		return
	}
	ctx, cancel := s.c.limit(ctx)
	defer cancel()
	_, _ = s.c.agent.TtyWinResize(ctx, &agentpb.TtyWinResizeRequest{
		ContainerId: s.container, ExecId: s.exec, Row: uint32(rows), Column: uint32(cols),
	})
}
