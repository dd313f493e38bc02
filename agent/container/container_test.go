package container_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/container"
	"github.com/coffer-cc/coffer/agent/container/containertest"
)

func TestLife(t *testing.T) {
	sameFiles(t)
	c, d := plain(t, shell("echo out; echo err >&2; exit 7"), container.Options{})
	if got := c.State(); got != container.StateCreated {
		t.Errorf("State = %s, want created", got)
	}
	p := start(t, c)
	if got := string(readAll(t, p.ReadStdout, 100)); got != "out\n" {
		t.Errorf("stdout = %q", got)
	}
	if got := string(readAll(t, p.ReadStderr, 100)); got != "err\n" {
		t.Errorf("stderr = %q", got)
	}
	wait(t, p, 7)
	wait(t, p, 7) // the host waits twice
	if got := c.State(); got != container.StateStopped {
		t.Errorf("State = %s, want stopped", got)
	}
	for range 2 {
		if err := c.Destroy(patient(t)); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	}
	wait(t, p, 7) // whoever still holds it
	if got := d.Live(); got != 0 {
		t.Errorf("%d jails left", got)
	}
}

func TestNewRefusesPartialSpec(t *testing.T) {
	whole := plainSpec(shell("true"))
	for _, tc := range []struct {
		name string
		spec *specs.Spec
	}{
		{"no spec", nil},
		{"no process", &specs.Spec{Root: whole.Root, Linux: whole.Linux}},
		{"no root", &specs.Spec{Process: whole.Process, Linux: whole.Linux}},
		{"no linux", &specs.Spec{Process: whole.Process, Root: whole.Root}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := container.New(patient(t), &containertest.Driver{}, "id", tc.spec, container.Options{})
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("New = %v, want invalid argument", err)
			}
		})
	}
}

func TestNewIsAllOrNothing(t *testing.T) {
	sameFiles(t)
	d := &containertest.Driver{}
	p := shell("true")
	p.Args = []string{"/no/such/program"}
	_, err := container.New(patient(t), d, "id", plainSpec(p), container.Options{})
	if err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("New = %v, want an error that names the program", err)
	}
	if got := d.Live(); got != 0 {
		t.Errorf("%d jails left", got)
	}
}

func TestStartTwiceAndTooLate(t *testing.T) {
	c, _ := plain(t, shell("exec sleep 100"), container.Options{})
	start(t, c)
	if err := c.Start(patient(t)); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("second Start = %v, want failed precondition", err)
	}
}

func TestStartAfterInitDied(t *testing.T) {
	c, _ := plain(t, shell("true"), container.Options{})
	if err := c.Signal(patient(t), "", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wait(t, process(t, c, ""), 137)
	if err := c.Start(patient(t)); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("Start = %v, want failed precondition", err)
	}
}

func TestWaitOfCreatedContainer(t *testing.T) {
	c, _ := plain(t, shell("true"), container.Options{})
	p := process(t, c, "plain") // its own id means init as well
	if _, err := p.Wait(brief(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Wait = %v, want to be pending", err)
	}
	answer := make(chan error, 1)
	ctx := patient(t)
	go func() {
		_, err := p.Wait(ctx)
		answer <- err
	}()
	if err := c.Destroy(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; !errdefs.IsNotFound(err) {
		t.Errorf("Wait = %v, want not found", err)
	}
	if _, err := p.Wait(ctx); !errdefs.IsNotFound(err) {
		t.Errorf("late Wait = %v, want not found", err)
	}
}

func TestWaitAnswersEverybody(t *testing.T) {
	c, _ := plain(t, shell("read line; exit 3"), container.Options{})
	p := start(t, c)
	ctx := patient(t)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if code, err := p.Wait(ctx); code != 3 || err != nil {
				t.Errorf("Wait = %d, %v, want 3", code, err)
			}
		})
	}
	if err := p.CloseStdin(); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	if err := p.CloseStdin(); err != nil {
		t.Errorf("CloseStdin again: %v", err)
	}
}

func TestExec(t *testing.T) {
	sameFiles(t)
	c, _ := plain(t, shell("exec sleep 100"), container.Options{})
	if err := c.Exec(patient(t), "early", shell("true")); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("Exec before Start = %v, want failed precondition", err)
	}
	start(t, c)
	if err := c.Exec(patient(t), "e", shell("cat; exit 4")); err != nil {
		t.Fatal(err)
	}
	if err := c.Exec(patient(t), "e", shell("true")); !errdefs.IsAlreadyExists(err) {
		t.Errorf("Exec with a used id = %v, want already exists", err)
	}
	if err := c.Exec(patient(t), "plain", shell("true")); !errdefs.IsAlreadyExists(err) {
		t.Errorf("Exec with the container's id = %v, want already exists", err)
	}
	e := process(t, c, "e")
	if n, err := e.WriteStdin(patient(t), []byte("hello")); n != 5 || err != nil {
		t.Errorf("WriteStdin = %d, %v", n, err)
	}
	e.CloseStdin()
	if got := string(readAll(t, e.ReadStdout, 100)); got != "hello" {
		t.Errorf("stdout = %q", got)
	}
	wait(t, e, 4)
	if err := c.Exec(patient(t), "e", shell("exit 5")); err != nil {
		t.Errorf("Exec with the id of a finished one: %v", err)
	}
	wait(t, process(t, c, "e"), 5)
	missing := shell("")
	missing.Args = []string{"no-such-program"}
	if err := c.Exec(patient(t), "m", missing); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("Exec of nothing = %v, want the program's name", err)
	}
	if _, err := c.Process("m"); !errdefs.IsNotFound(err) {
		t.Errorf("Process after a failed Exec = %v, want not found", err)
	}
}

func TestSignalRules(t *testing.T) {
	const deaf = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
	for _, tc := range []struct {
		name   string
		script string
		execID string
		sig    unix.Signal
		code   int
	}{
		{"kill everybody", deaf, "", unix.SIGKILL, 137},
		{"kill init by its id", deaf, "plain", unix.SIGKILL, 137},
		{"term without a handler becomes kill", "echo ready; exec sleep 100", "", unix.SIGTERM, 137},
		{"term with a handler stays", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done", "", unix.SIGTERM, 9},
		{"another signal stays", "echo ready; exec sleep 100", "", unix.SIGUSR1, 128 + int(unix.SIGUSR1)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, _ := plain(t, shell(tc.script), container.Options{})
			p := start(t, c)
			until(t, p.ReadStdout, "ready")
			if err := c.Signal(patient(t), tc.execID, tc.sig); err != nil {
				t.Fatal(err)
			}
			if err := c.Signal(patient(t), "plain", 0); err != nil {
				t.Errorf("signal to a dying process: %v", err)
			}
			wait(t, p, tc.code)
			if err := c.Signal(patient(t), "plain", tc.sig); !errdefs.IsNotFound(err) {
				t.Errorf("signal after the wait = %v, want not found", err)
			}
			if err := c.Signal(patient(t), "", unix.SIGKILL); err != nil {
				t.Errorf("kill everybody after the wait: %v", err)
			}
		})
	}
	c, _ := plain(t, shell("true"), container.Options{})
	if err := c.Signal(patient(t), "", 65); !errdefs.IsInvalidArgument(err) {
		t.Errorf("signal 65 = %v, want invalid argument", err)
	}
	if err := c.Signal(patient(t), "nobody", unix.SIGKILL); !errdefs.IsNotFound(err) {
		t.Errorf("signal to nobody = %v, want not found", err)
	}
}

func TestPauseAndResume(t *testing.T) {
	c, _ := plain(t, shell("exec sleep 100"), container.Options{})
	if err := c.Resume(patient(t)); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("Resume of a created container = %v, want failed precondition", err)
	}
	p := start(t, c)
	if err := c.Pause(patient(t)); err != nil {
		t.Fatal(err)
	}
	if got := c.State(); got != container.StatePaused {
		t.Errorf("State = %s, want paused", got)
	}
	if err := c.Exec(patient(t), "e", shell("true")); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("Exec while paused = %v, want failed precondition", err)
	}
	if err := c.Resume(patient(t)); err != nil {
		t.Fatal(err)
	}
	if got := c.State(); got != container.StateRunning {
		t.Errorf("State = %s, want running", got)
	}
	c.Pause(patient(t))
	c.Signal(patient(t), "", unix.SIGKILL)
	wait(t, p, 137)
}

func TestUpdateKeepsWhatItDoesNotName(t *testing.T) {
	c, d := plain(t, shell("exec sleep 100"), container.Options{})
	limit, quota, period := int64(1<<30), int64(5000), uint64(10000)
	for _, r := range []*specs.LinuxResources{
		{Memory: &specs.LinuxMemory{Limit: &limit}, CPU: &specs.LinuxCPU{Period: &period}},
		{CPU: &specs.LinuxCPU{Quota: &quota}},
		nil,
	} {
		if err := c.Update(patient(t), r); err != nil {
			t.Fatal(err)
		}
	}
	updates := d.Jail("plain").Updates()
	if len(updates) != 2 {
		t.Fatalf("%d updates reached the jail, want 2", len(updates))
	}
	last := updates[1]
	if *last.Memory.Limit != limit || *last.CPU.Quota != quota || *last.CPU.Period != period {
		t.Errorf("last update = %+v %+v, want all three limits", *last.Memory, *last.CPU)
	}
	if got := c.Spec().Linux.Resources; got != last {
		t.Errorf("spec does not hold the update")
	}
}

func TestOOMIsReportedOnce(t *testing.T) {
	c, d := plain(t, shell("exec sleep 100"), container.Options{})
	select {
	case <-c.OOM():
		t.Fatal("reported before it happened")
	default:
	}
	d.Jail("plain").OOM()
	d.Jail("plain").OOM()
	<-c.OOM()
	<-c.OOM()
}

// A hung start of a program must hold up neither signals nor the end.
func TestDestroyDuringExec(t *testing.T) {
	held, proceed := make(chan struct{}), make(chan struct{})
	d := &containertest.Driver{HoldSpawn: func(string) {
		close(held)
		<-proceed
	}}
	c, err := container.New(patient(t), d, "c", plainSpec(shell("exec sleep 100")), container.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, c)
	ctx := patient(t)
	exec, destroy := make(chan error, 1), make(chan error, 1)
	go func() { exec <- c.Exec(ctx, "e", shell("exec sleep 100")) }()
	<-held
	if _, err := c.Stats(ctx); err != nil {
		t.Errorf("Stats during exec: %v", err)
	}
	go func() { destroy <- c.Destroy(ctx) }()
	wait(t, p, 137) // while the exec still hangs
	close(proceed)
	<-exec
	if err := <-destroy; err != nil {
		t.Errorf("Destroy: %v", err)
	}
	if got := d.Live(); got != 0 {
		t.Errorf("%d jails left", got)
	}
}

func TestManyExecsAreForgotten(t *testing.T) {
	if testing.Short() {
		t.Skip("starts more than a thousand processes")
	}
	sameFiles(t)
	c, _ := plain(t, shell("exec sleep 100"), container.Options{})
	start(t, c)
	before := openFiles(t)
	const many = 1100
	for n := range many {
		id := fmt.Sprint("e", n)
		if err := c.Exec(patient(t), id, shell("exit 1")); err != nil {
			t.Fatal(err)
		}
		p := process(t, c, id)
		readAll(t, p.ReadStdout, 10)
		readAll(t, p.ReadStderr, 10)
		wait(t, p, 1)
	}
	if got := openFiles(t); got > before {
		t.Errorf("%d files open after %d finished execs, %d before", got, many, before)
	}
	if _, err := c.Process("e0"); !errdefs.IsNotFound(err) {
		t.Errorf("the first of %d execs = %v, want not found", many, err)
	}
	wait(t, process(t, c, fmt.Sprint("e", many-1)), 1)
}
