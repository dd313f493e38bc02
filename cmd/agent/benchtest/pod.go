package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rpc/wire"
)

// pod is the agent's sandbox as a shim drives it.
type pod struct {
	b     *bench
	s     *server
	execs int // so far; an id of an exec is used once
}

func (p *pod) create(id string, args ...string) error {
	_, err := p.s.CreateContainer(p.b.ctx, &agentpb.CreateContainerRequest{
		ContainerId: id, ExecId: id, OCI: wire.SpecMessage(p.b.spec(id, args...)),
	})
	return err
}

func (p *pod) start(id string) error {
	_, err := p.s.StartContainer(p.b.ctx, &agentpb.StartContainerRequest{ContainerId: id})
	return err
}

func (p *pod) wait(id, execID string, want int32) error {
	r, err := p.s.WaitProcess(p.b.ctx, &agentpb.WaitProcessRequest{ContainerId: id, ExecId: execID})
	if err == nil && r.GetStatus() != want {
		err = fmt.Errorf("exit code %d, not %d", r.GetStatus(), want)
	}
	return err
}

func (p *pod) remove(id string) error {
	_, err := p.s.RemoveContainer(p.b.ctx, &agentpb.RemoveContainerRequest{ContainerId: id})
	return err
}

// runs creates and starts a container.
func (p *pod) runs(id string, args ...string) error {
	if err := p.create(id, args...); err != nil {
		return err
	}
	return p.start(id)
}

func (p *pod) life(id string) (started, whole time.Duration, err error) {
	began := time.Now()
	if err := p.runs(id, "true"); err != nil {
		return 0, 0, err
	}
	started = time.Since(began)
	if err := p.wait(id, id, 0); err != nil {
		return 0, 0, err
	}
	err = p.remove(id)
	return started, time.Since(began), err
}

func (p *pod) run(id string) error { return p.runs(id, "sleep", "100000") }

func (p *pod) exec(id string) (time.Duration, error) {
	p.execs++
	execID := fmt.Sprint("exec", p.execs)
	process := wire.SpecMessage(p.b.spec(id, "true")).GetProcess()
	began := time.Now()
	_, err := p.s.ExecProcess(p.b.ctx, &agentpb.ExecProcessRequest{ContainerId: id, ExecId: execID, Process: process})
	if err == nil {
		err = p.wait(id, execID, 0)
	}
	return time.Since(began), err
}

func (p *pod) kill(id string) error {
	_, err := p.s.SignalProcess(p.b.ctx, &agentpb.SignalProcessRequest{ContainerId: id, Signal: uint32(unix.SIGKILL)})
	if err == nil {
		err = p.wait(id, id, 137)
	}
	if err != nil {
		return err
	}
	return p.remove(id)
}

func (p *pod) spent() (time.Duration, error) { return spentBy(p.s.cmd.Process.Pid) }
