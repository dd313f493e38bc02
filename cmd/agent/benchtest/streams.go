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
		goals := goal{}
		if kib == 32 {
			goals.ratioAtLeast = 0.8
		}
		ours, theirs, err := b.rates(s, bare, func(s *server) (int, error) { return s.read("out", kib<<10) })
		if err != nil {
			return err
		}
		b.table.versus(fmt.Sprintf("ReadStdout of %d KiB", kib), "MB/s", ours, "bare ttRPC server", theirs, goals)
		if kib == 32 {
			b.table.alone("ReadStdout of 32 KiB", "MB/s", ours, goal{atLeast: 150})
		}
	}
	for _, kib := range []int{32, 1024} {
		data := make([]byte, kib<<10)
		ours, theirs, err := b.rates(s, bare, func(s *server) (int, error) { return s.write("in", data) })
		if err != nil {
			return err
		}
		b.table.versus(fmt.Sprintf("WriteStdin of %d KiB", kib), "MB/s", ours, "bare ttRPC server", theirs, goal{})
	}
	for _, id := range []string{"out", "in"} {
		if err := p.kill(id); err != nil {
			return err
		}
	}
	return nil
}

// rates returns the medians of both servers' MB/s.
func (b *bench) rates(one, two *server, move func(*server) (int, error)) (float64, float64, error) {
	all := make([][]float64, 2)
	for range streamRounds {
		for i, s := range []*server{one, two} {
			bytes, began := 0, time.Now()
			for time.Since(began) < streamTime {
				n, err := move(s)
				if err != nil {
					return 0, 0, err
				}
				bytes += n
			}
			all[i] = append(all[i], float64(bytes)/1e6/time.Since(began).Seconds())
		}
	}
	return middle(all[0]), middle(all[1]), nil
}

func (s *server) read(id string, most int) (int, error) {
	r, err := s.ReadStdout(s.ctx, &agentpb.ReadStreamRequest{ContainerId: id, ExecId: id, Len: uint32(most)})
	return len(r.GetData()), err
}

func (s *server) write(id string, data []byte) (int, error) {
	r, err := s.WriteStdin(s.ctx, &agentpb.WriteStreamRequest{ContainerId: id, ExecId: id, Data: data})
	return int(r.GetLen()), err
}
