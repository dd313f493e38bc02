package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/protos/agentpb"
)

// TestParallelSetup has 64 callers make two sandboxes and containers in them at
// once: one sandbox comes out of it, and nothing of the other.
func TestParallelSetup(t *testing.T) {
	if !inGuest(t) {
		return
	}
	for round := range 2 {
		agent, a := barePod(t)
		var group sync.WaitGroup
		made, refused := make(chan string, 64), make(chan error, 64)
		for i := range 64 {
			id := fmt.Sprintf("pod%d", i%2)
			group.Go(func() {
				_, err := a.CreateSandbox(a.ctx, &agentpb.CreateSandboxRequest{SandboxId: id})
				if err == nil {
					made <- id
				} else {
					refused <- err
				}
			})
			group.Go(func() { a.create(fmt.Sprintf("c%d", i), "exit 0") }) //nolint:errcheck // before or after the setup, as it comes
		}
		group.Wait()
		close(made)
		close(refused)
		ids := map[string]int{}
		for id := range made {
			ids[id]++
		}
		if len(ids) != 1 || len(refused) != 32 {
			t.Errorf("round %d: sandboxes %v were made, %d refused", round, ids, len(refused))
		}
		for err := range refused {
			if !strings.Contains(err.Error(), "another id") {
				t.Errorf("refused with %v", err)
			}
		}
		a.destroy(agent)
	}
}

// barePod is an agent without a sandbox.
func barePod(t *testing.T) (*instance, api) {
	t.Helper()
	root := filepath.Join(guest.SharedDir, "root")
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	makeRoot(t, root)
	agent := bootAgent(t, rulesOfAPI, realAgent)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return agent, api{agentpb.NewAgentServiceClient(agent.client), t, ctx}
}

// TestBusyGuestAnswers fills the guest with work: output that nobody reads,
// orphans without end, executions by the dozen. The agent answers others all the
// time, and a kill ends it all.
func TestBusyGuestAnswers(t *testing.T) {
	if !inGuest(t) {
		return
	}
	agent, a, _ := streamPod(t)
	a.run("flood", "while true; do cat /pattern; done")
	a.run("orphans", "while true; do (sleep 0 &); done >/dev/null 2>&1")
	a.run("probed", "sleep 1000")
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 8 {
				if err := a.exec("probed", fmt.Sprintf("e%d.%d", worker, i), "true"); err != nil {
					t.Errorf("exec: %v", err)
					return
				}
			}
		})
	}
	health := agentpb.NewHealthClient(agent.client)
	answers := make(chan struct{})
	asked := 0
	go func() { group.Wait(); close(answers) }()
	for busy := true; busy; asked++ {
		select {
		case <-answers:
			busy = false
		default:
		}
		soon, cancel := context.WithTimeout(a.ctx, 5*time.Second)
		if _, err := health.Check(soon, &agentpb.CheckRequest{}); err != nil {
			t.Fatalf("check: %v", err)
		}
		if _, err := a.StatsContainer(soon, &agentpb.StatsContainerRequest{ContainerId: "flood"}); err != nil {
			t.Fatalf("stats: %v", err)
		}
		cancel()
	}
	t.Logf("answered %d times meanwhile", asked)
	for _, id := range []string{"orphans", "flood", "probed"} {
		soon, cancel := context.WithTimeout(a.ctx, 5*time.Second)
		if _, err := a.SignalProcess(soon, &agentpb.SignalProcessRequest{ContainerId: id, Signal: 9}); err != nil {
			t.Errorf("kill %s: %v", id, err)
		}
		cancel()
		if code := a.wait(id, id); code != 137 {
			t.Errorf("%s ended with %d", id, code)
		}
		a.remove(id)
	}
	a.destroy(agent)
}
