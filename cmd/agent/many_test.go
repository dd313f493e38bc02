package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

func requestBytes(t *testing.T, method string, m proto.Message) []byte {
	t.Helper()
	payload, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(&ttrpc.Request{Service: "grpc.AgentService", Method: method, Payload: payload})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestManyLives leads 200 containers one after the other and 32 at a time
// through everything a shim does, and finds files, mounts, cgroups and
// goroutines as they were.
func TestManyLives(t *testing.T) {
	if !inGuest(t) {
		return
	}
	agent, a, _ := streamPod(t)
	life := func(id string) error { return a.life(id, len(id)) }
	if err := life("warm"); err != nil { // for what is opened once
		t.Fatal(err)
	}
	files, cgroups := leftovers(t), cgroupsOf(t)
	goroutines := settledGoroutines(0)
	for i := range 200 {
		if err := life(fmt.Sprintf("s%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 3 {
		var group sync.WaitGroup
		for i := range 32 {
			group.Go(func() {
				if err := life(fmt.Sprintf("p%d.%d", round, i)); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
	}
	sameLeftovers(t, files, leftovers(t))
	if got := cgroupsOf(t); !slices.Equal(got, cgroups) {
		t.Errorf("cgroups %v, were %v", got, cgroups)
	}
	if got := settledGoroutines(goroutines); got > goroutines {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines, were %d\n%s", got, goroutines, buf[:runtime.Stack(buf, true)])
	}
	a.destroy(agent)
}

// life is one container with an exec. It says what was lost on the way.
func (a api) life(id string, code int) error {
	ctx, cancel := context.WithTimeout(a.ctx, 2*time.Minute)
	defer cancel()
	b := api{a.AgentServiceService, a.t, ctx}
	if err := b.create(id, fmt.Sprintf("read line; echo $line; exit %d", code)); err != nil {
		return fmt.Errorf("create %s: %w", id, err)
	}
	if _, err := b.StartContainer(ctx, &agentpb.StartContainerRequest{ContainerId: id}); err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	if err := b.exec(id, "probe", "echo", "alive"); err != nil {
		return fmt.Errorf("exec in %s: %w", id, err)
	}
	if err := b.ends(id, "probe", "alive\n", 0); err != nil {
		return err
	}
	if _, err := b.WriteStdin(ctx, &agentpb.WriteStreamRequest{ContainerId: id, ExecId: id, Data: []byte(id + "\n")}); err != nil {
		return fmt.Errorf("write to %s: %w", id, err)
	}
	if err := b.ends(id, id, id+"\n", int32(code)); err != nil {
		return err
	}
	if _, err := b.RemoveContainer(ctx, &agentpb.RemoveContainerRequest{ContainerId: id}); err != nil {
		return fmt.Errorf("remove %s: %w", id, err)
	}
	return nil
}

// ends reads a process's output to its end and waits for its exit code.
func (a api) ends(id, execID, output string, code int32) error {
	var got strings.Builder
	for {
		r, err := a.ReadStdout(a.ctx, &agentpb.ReadStreamRequest{ContainerId: id, ExecId: execID, Len: 32768})
		if err != nil {
			return fmt.Errorf("read %s of %s: %w", execID, id, err)
		}
		if len(r.GetData()) == 0 {
			break
		}
		got.Write(r.GetData())
	}
	w, err := a.WaitProcess(a.ctx, &agentpb.WaitProcessRequest{ContainerId: id, ExecId: execID})
	if err != nil {
		return fmt.Errorf("wait for %s of %s: %w", execID, id, err)
	}
	if got.String() != output || w.GetStatus() != code {
		return fmt.Errorf("%s of %s: %q and %d, want %q and %d", execID, id, got.String(), w.GetStatus(), output, code)
	}
	return nil
}

// cgroupsOf lists the cgroups that containers of this test have.
func cgroupsOf(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, h := range hierarchies(t) {
		entries, err := os.ReadDir(h.target + "/api")
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() {
				out = append(out, h.target+"/api/"+e.Name())
			}
		}
	}
	return out
}

// settledGoroutines is their number once those of calls that were just answered
// are gone: when it has come down to limit, or else no longer falls.
func settledGoroutines(limit int) int {
	lowest := runtime.NumGoroutine()
	for range 50 {
		if lowest <= limit {
			break
		}
		time.Sleep(10 * time.Millisecond)
		lowest = min(lowest, runtime.NumGoroutine())
	}
	return lowest
}
