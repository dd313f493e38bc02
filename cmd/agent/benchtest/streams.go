package main

import (
	"fmt"
	"time"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

const (
	streamRounds = 5
	streamTime   = 500 * time.Millisecond
)

// streams measures how fast a container's output and input go through the
// socket, one call after the other as shims do it, beside a bare server that
// takes the bytes from memory.
func (b *bench) streams() error {
	s, err := b.startSandbox("")
	if err != nil {
		return err
	}
	defer s.stop()
	bare, err := b.startBare()
	if err != nil {
		return err
	}
	defer bare.stop()
	p := &pod{b: b, s: s}
	if err := p.runs("out", "dd", "if=/dev/zero", "bs=1M"); err != nil {
		return err
	}
	if err := p.runs("in", "dd", "of=/dev/null", "bs=1M"); err != nil {
		return err
	}
	for _, kib := range []int{4, 32, 256, 1024} {
		f, err := b.rates(s, bare, func(s *server) (int, error) { return s.read("out", kib<<10) })
		if err != nil {
			return err
		}
		b.streamRows(fmt.Sprintf("ReadStdout of %d KiB", kib), f, kib == 32)
	}
	for _, kib := range []int{32, 1024} {
		data := make([]byte, kib<<10)
		f, err := b.rates(s, bare, func(s *server) (int, error) { return s.write("in", data) })
		if err != nil {
			return err
		}
		b.streamRows(fmt.Sprintf("WriteStdin of %d KiB", kib), f, false)
	}
	for _, id := range []string{"out", "in"} {
		if err := p.kill(id); err != nil {
			return err
		}
	}
	return nil
}

// flow is what a server carried: the median of MB/s, and the processor time that
// a MB took, which says more on a busy machine.
type flow struct{ rate, spent float64 }

func (b *bench) streamRows(what string, f [2]flow, goals bool) {
	const peer = "bare ttRPC server"
	ratio, least := goal{}, goal{}
	if goals {
		ratio.ratioAtLeast, least.atLeast = 0.8, 150
	}
	b.table.versus(what, "MB/s", f[0].rate, peer, f[1].rate, ratio)
	if goals {
		b.table.alone(what, "MB/s", f[0].rate, least)
	}
	b.table.versus(what+", processor time", "ms/MB", f[0].spent, peer, f[1].spent, goal{})
}

// rates measures two servers in turns.
func (b *bench) rates(one, two *server, move func(*server) (int, error)) (f [2]flow, err error) {
	rates, total := make([][]float64, 2), make([]float64, 2)
	for range streamRounds {
		for i, s := range []*server{one, two} {
			before, err := spentBy(s.cmd.Process.Pid)
			if err != nil {
				return f, err
			}
			moved, began := 0, time.Now()
			for time.Since(began) < streamTime {
				n, err := move(s)
				if err != nil {
					return f, err
				}
				moved += n
			}
			mb := float64(moved) / 1e6
			rates[i] = append(rates[i], mb/time.Since(began).Seconds())
			after, err := spentBy(s.cmd.Process.Pid)
			if err != nil {
				return f, err
			}
			total[i] += mb
			f[i].spent += ms(after - before)
		}
	}
	for i := range f {
		f[i] = flow{middle(rates[i]), f[i].spent / total[i]}
	}
	return f, nil
}

func (s *server) read(id string, most int) (int, error) {
	r, err := s.ReadStdout(s.ctx, &agentpb.ReadStreamRequest{ContainerId: id, ExecId: id, Len: uint32(most)})
	return len(r.GetData()), err
}

func (s *server) write(id string, data []byte) (int, error) {
	r, err := s.WriteStdin(s.ctx, &agentpb.WriteStreamRequest{ContainerId: id, ExecId: id, Data: data})
	return int(r.GetLen()), err
}
