package main

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"time"
)

const (
	lives = 25
	execs = 25
)

// engine makes containers; the agent is one, and so are its rivals.
type engine interface {
	// life runs a container from create to removal. started is the time until
	// its program runs, whole that until nothing is left of it.
	life(id string) (started, whole time.Duration, err error)
	// run leaves a container running, exec runs true in it, kill ends it.
	run(id string) error
	exec(id string) (time.Duration, error)
	kill(id string) error
	// spent is the processor time so far, with that of the containers.
	spent() (time.Duration, error)
}

// containers compares lives of containers and execs.
func (b *bench) containers() error {
	s, err := b.startSandbox("")
	if err != nil {
		return err
	}
	defer s.stop()
	floor, err := b.startFloor()
	if err != nil {
		return err
	}
	defer floor.stop()
	runc, err := b.newRunc()
	if err != nil {
		return err
	}
	rivals := []engine{&pod{b: b, s: s}, floor, runc}
	if err := b.compareLives(rivals); err != nil {
		return err
	}
	return b.compareExecs(rivals)
}

func (b *bench) compareLives(rivals []engine) error {
	started, whole, spent := make([]sample, len(rivals)), make([]sample, len(rivals)), make([]sample, len(rivals))
	for n := range lives {
		for _, i := range turns(len(rivals)) {
			l, err := oneLife(rivals[i], fmt.Sprint("life", n))
			if err != nil {
				return fmt.Errorf("a life by %T: %w", rivals[i], err)
			}
			started[i], whole[i], spent[i] = append(started[i], l.started), append(whole[i], l.whole), append(spent[i], l.spent)
		}
	}
	// The kernel counts processor time in hundredths of a second, so that only
	// the mean means something.
	for i := range spent {
		spent[i] = sample{spent[i].mean()}
	}
	b.rows("container, create+start", started, goal{ratioAtMost: 1.5})
	b.rows("container, create to removed", whole, goal{})
	b.rows("the same, processor time", spent, goal{})
	return nil
}

type life struct{ started, whole, spent time.Duration }

func oneLife(r engine, id string) (l life, err error) {
	before, err := r.spent()
	if err != nil {
		return l, err
	}
	if l.started, l.whole, err = r.life(id); err != nil {
		return l, err
	}
	after, err := r.spent()
	l.spent = after - before
	return l, err
}

func (b *bench) compareExecs(rivals []engine) error {
	took := make([]sample, len(rivals))
	for _, r := range rivals {
		if err := r.run("exec"); err != nil {
			return fmt.Errorf("run by %T: %w", r, err)
		}
	}
	for range execs {
		for _, i := range turns(len(rivals)) {
			r := rivals[i]
			d, err := r.exec("exec")
			if err != nil {
				return fmt.Errorf("exec by %T: %w", r, err)
			}
			took[i] = append(took[i], d)
		}
	}
	b.rows("exec of true, start to exit", took, goal{})
	for _, r := range rivals {
		if err := r.kill("exec"); err != nil {
			return fmt.Errorf("kill by %T: %w", r, err)
		}
	}
	return nil
}

// pause comes before each turn.
const pause = 50 * time.Millisecond

// turns are the rivals' numbers in a new order. Who comes right behind another
// has it easier: the kernel moves a process into a cgroup many times faster
// while it still remembers the last move. So there is a pause, and nobody always
// follows the same one.
func turns(n int) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		for turn, who := range rand.Perm(n) {
			time.Sleep(pause)
			if !yield(turn, who) {
				return
			}
		}
	}
}

// rows compares the agent with libcontainer alone, to which the goal belongs,
// and with runc.
func (b *bench) rows(what string, took []sample, g goal) {
	b.table.versus(what, "ms", ms(took[0].median()), "libcontainer only", ms(took[1].median()), g)
	b.table.versus(what, "ms", ms(took[0].median()), "runc", ms(took[2].median()), goal{})
}
