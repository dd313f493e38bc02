package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rpc/wire"
)

// crowd is how many containers there are at once.
const crowd = 50

// crowd measures what a full pod does to the agent, and whether a create that
// waits for a registry holds up the others.
func (b *bench) crowd() error {
	if err := b.pending(); err != nil {
		return err
	}
	alone, err := b.startSandbox("")
	if err != nil {
		return err
	}
	defer alone.stop()
	before, err := b.settled(alone)
	if err != nil {
		return err
	}
	idle, _, err := b.latencies(1, alone.check, alone.check)
	if err != nil {
		return err
	}
	p := &pod{b: b, s: alone}
	for n := range crowd {
		if err := p.run(fmt.Sprint("crowd", n)); err != nil {
			return err
		}
	}
	after, err := b.settled(alone)
	if err != nil {
		return err
	}
	busy, _, err := b.latencies(1, alone.check, alone.check)
	if err != nil {
		return err
	}
	b.table.versus(fmt.Sprintf("anonymous memory with %d containers", crowd), "MB", after.anonymous, "with none", before.anonymous, goal{})
	b.table.alone("anonymous memory for each container", "KB", (after.anonymous-before.anonymous)*1000/crowd, goal{})
	b.table.versus(fmt.Sprintf("Check p50 with %d containers", crowd), "µs", busy.p50, "with none", idle.p50, goal{})
	for n := range crowd {
		if err := p.kill(fmt.Sprint("crowd", n)); err != nil {
			return err
		}
	}
	return nil
}

// settled waits as long as for an idle agent and returns its memory.
func (b *bench) settled(s *server) (memory, error) {
	time.Sleep(rest)
	return memoryOf(s.cmd.Process.Pid)
}

// pending asks for statistics of one container while another waits for an image
// from a registry that does not answer.
func (b *bench) pending() error {
	mute, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		return err
	}
	defer mute.Close()
	s, err := b.startSandbox(insecure(mute.Addr().String()))
	if err != nil {
		return err
	}
	defer s.stop()
	p := &pod{b: b, s: s}
	if err := p.run("watched"); err != nil {
		return err
	}
	stats := func(ctx context.Context) error {
		_, err := s.StatsContainer(ctx, &agentpb.StatsContainerRequest{ContainerId: "watched"})
		return err
	}
	free, _, err := b.latencies(1, stats, stats)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(b.ctx)
	created := make(chan error, 1)
	go func() { created <- p.pull(ctx, "stuck", mute.Addr().String()+"/never:1") }()
	conn, err := mute.Accept() // now the create is pending
	if err != nil {
		cancel()
		return err
	}
	defer conn.Close()
	held, _, err := b.latencies(1, stats, stats)
	cancel()
	if failed := <-created; failed == nil {
		return fmt.Errorf("the create that should be pending has ended")
	}
	if err != nil {
		return err
	}
	b.table.versus("StatsContainer p50 while a create is pending", "µs", held.p50, "with none pending", free.p50, goal{})
	b.table.versus("StatsContainer p99 while a create is pending", "µs", held.p99, "with none pending", free.p99, goal{})
	return p.kill("watched")
}

// insecure are the settings for a registry without TLS.
func insecure(host string) string {
	return fmt.Sprintf("[[image.registry_config.registry]]\nlocation = %q\ninsecure = true\n", host)
}

// pull creates a container from an image.
func (p *pod) pull(ctx context.Context, id, ref string) error {
	spec := p.b.spec(id, "true")
	spec.Root.Path = "/run/kata-containers/" + id + "/rootfs"
	_, err := p.s.CreateContainer(ctx, &agentpb.CreateContainerRequest{
		ContainerId: id, ExecId: id, OCI: wire.SpecMessage(spec),
		Storages: []*agentpb.Storage{{
			Driver: "image_guest_pull", Fstype: "overlay", Source: ref, MountPoint: spec.Root.Path,
			DriverOptions: []string{`image_guest_pull={"metadata":{"io.kubernetes.cri.container-type":"container"}}`},
		}},
	})
	return err
}
