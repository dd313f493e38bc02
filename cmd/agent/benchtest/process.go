package main

import (
	"os"
	"time"
)

// starts is how often the agent is started.
const starts = 21

// rest is how long a process that has nothing to do is left alone before its
// memory counts.
const rest = 6 * time.Second

// process measures what it costs to have the agent at all.
func (b *bench) process() error {
	var agent, bare sample
	for range starts {
		for _, rival := range []struct {
			start func() (*server, error)
			into  *sample
		}{{func() (*server, error) { return b.startAgent("") }, &agent}, {b.startBare, &bare}} {
			s, err := rival.start()
			if err != nil {
				return err
			}
			s.stop()
			*rival.into = append(*rival.into, s.ready)
		}
	}
	b.table.versus("exec to first Check OK", "ms", ms(agent.median()), "bare ttRPC server", ms(bare.median()), goal{atMost: 60})
	return b.idle()
}

func (b *bench) idle() error {
	agent, err := b.startAgent("")
	if err != nil {
		return err
	}
	defer agent.stop()
	bare, err := b.startBare()
	if err != nil {
		return err
	}
	defer bare.stop()
	time.Sleep(rest)
	ours, err := memoryOf(agent.cmd.Process.Pid)
	if err != nil {
		return err
	}
	theirs, err := memoryOf(bare.cmd.Process.Pid)
	if err != nil {
		return err
	}
	st, err := os.Stat(b.agent)
	if err != nil {
		return err
	}
	b.table.versus("idle, anonymous memory", "MB", ours.anonymous, "bare ttRPC server", theirs.anonymous, goal{atMost: 10})
	b.table.alone("idle, PSS", "MB", ours.pss, goal{})
	b.table.alone("idle, RSS", "MB", ours.rss, goal{})
	b.table.alone("binary", "MB", float64(st.Size())/1e6, goal{atMost: 35})
	return nil
}
