package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// chunk is what one read or write asks for, as shims do.
const chunk = 32 << 10

// session is a process of a container with our stdio attached to its own.
type session struct {
	*app
	c         *client
	container string
	exec      string // "" is the container's init
	stdin     bool
	tty       bool
}

// attach copies the streams until the process is done and returns its exit
// code. The order is that of shims: first the ends of the output streams, then
// the wait, so that no output is lost.
//
//	attach ─▶ ReadStdout…, ReadStderr… ─▶ empty, empty ─▶ WaitProcess ─▶ code
//	   └────▶ WriteStdin… ─▶ CloseStdin        signals ─▶ SignalProcess
func (s *session) attach(ctx context.Context) (int, error) {
	restore, err := s.startTerminal(ctx)
	if err != nil {
		return 0, err
	}
	defer restore()
	defer s.forwardSignals(ctx)()
	if s.stdin {
		go s.copyIn(ctx)
	} else if !s.tty {
		s.closeIn(ctx)
	}
	if err := s.copyOutputs(ctx); err != nil {
		return 0, err
	}
	r, err := s.c.agent.WaitProcess(ctx, &agentpb.WaitProcessRequest{ContainerId: s.container, ExecId: s.exec})
	if err != nil {
		return 0, failed("WaitProcess", err)
	}
	return int(r.Status), nil
}

// copyOutputs ends when both streams have. A failed write on our side ends it
// too: nobody reads on, as in "run … | head".
func (s *session) copyOutputs(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.copyOut(ctx, "ReadStdout", s.c.agent.ReadStdout, s.out) })
	if !s.tty { // a terminal has one stream
		g.Go(func() error { return s.copyOut(ctx, "ReadStderr", s.c.agent.ReadStderr, s.err) })
	}
	return g.Wait()
}

type readCall func(context.Context, *agentpb.ReadStreamRequest) (*agentpb.ReadStreamResponse, error)

// copyOut copies one stream. Empty data is its end; so is NOT_FOUND, which
// comes when someone else has waited for the process meanwhile.
func (s *session) copyOut(ctx context.Context, name string, read readCall, w io.Writer) error {
	req := &agentpb.ReadStreamRequest{ContainerId: s.container, ExecId: s.exec, Len: chunk}
	for {
		r, err := read(ctx, req)
		if code(err) == codes.NotFound || err == nil && len(r.Data) == 0 {
			return nil
		}
		if err != nil {
			return failed(name, err)
		}
		if _, err := w.Write(r.Data); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
	}
}

// copyIn is not waited for: a read of our stdin cannot be cancelled. It stops
// by itself when the process no longer takes input.
func (s *session) copyIn(ctx context.Context) {
	buf := make([]byte, chunk)
	for {
		n, err := s.in.Read(buf)
		if n > 0 {
			_, werr := s.c.agent.WriteStdin(ctx, &agentpb.WriteStreamRequest{
				ContainerId: s.container, ExecId: s.exec, Data: buf[:n],
			})
			if werr != nil {
				return
			}
		}
		if err != nil {
			break
		}
	}
	s.closeIn(ctx)
}

// closeIn ends the process's input; one that reads it would wait for ever
// otherwise. It is best effort: the process may be gone.
func (s *session) closeIn(ctx context.Context) {
	ctx, cancel := s.c.limit(ctx)
	defer cancel()
	_, _ = s.c.agent.CloseStdin(ctx, &agentpb.CloseStdinRequest{ContainerId: s.container, ExecId: s.exec})
}

// forwardSignals passes on what would end us, so that the workload can end in
// its own way. On a terminal the keys travel as input instead. It also keeps a
// closed pipe from killing us before the workload is taken down.
func (s *session) forwardSignals(ctx context.Context) (stop func()) {
	ch := make(chan os.Signal, 8)
	signal.Notify(ch, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case sig := <-ch:
				if sig != unix.SIGPIPE {
					s.signal(ctx, sig.(unix.Signal))
				}
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		close(done)
	}
}

// signal is best effort: the process may be gone already, which the streams
// will tell.
func (s *session) signal(ctx context.Context, sig unix.Signal) {
	ctx, cancel := s.c.limit(ctx)
	defer cancel()
	_, err := s.c.agent.SignalProcess(ctx, &agentpb.SignalProcessRequest{
		ContainerId: s.container, ExecId: s.exec, Signal: uint32(sig),
	})
	if err != nil && code(err) != codes.NotFound {
		s.note("%v", failed("SignalProcess", err))
	}
}
