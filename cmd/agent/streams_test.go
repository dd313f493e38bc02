package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/protos/agentpb"
)

// soakEnv makes streams as long as issue trackers ask for.
const soakEnv = "COFFER_SOAK"

// patternSize is the length of the file that containers print again and again.
const patternSize = 1 << 20

func streamMiB() int {
	if os.Getenv(soakEnv) != "" {
		return 1 << 10
	}
	return 16
}

// streamPod is an agent with a pod whose root holds the pattern.
func streamPod(t *testing.T) (*instance, api, []byte) {
	t.Helper()
	root := filepath.Join(guest.SharedDir, "root")
	makeRoot(t, root)
	pattern := make([]byte, patternSize)
	if _, err := rand.NewChaCha8([32]byte{7}).Read(pattern); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "pattern"), pattern, 0o644); err != nil {
		t.Fatal(err)
	}
	agent := bootAgent(t, rulesOfAPI, realAgent)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	a := api{agentpb.NewAgentServiceClient(agent.client), t, ctx}
	_, err := a.CreateSandbox(ctx, &agentpb.CreateSandboxRequest{SandboxId: "pod1"})
	a.must("create sandbox", err)
	return agent, a, pattern
}

func (a api) run(id, script string) {
	a.t.Helper()
	a.must("create "+id, a.create(id, script))
	_, err := a.StartContainer(a.ctx, &agentpb.StartContainerRequest{ContainerId: id})
	a.must("start "+id, err)
}

func (a api) remove(id string) {
	a.t.Helper()
	_, err := a.RemoveContainer(a.ctx, &agentpb.RemoveContainerRequest{ContainerId: id})
	a.must("remove "+id, err)
}

func (a api) destroy(agent *instance) {
	a.t.Helper()
	_, err := a.DestroySandbox(a.ctx, &agentpb.DestroySandboxRequest{})
	a.must("destroy", err)
	<-agent.destroyed
	agent.end(a.t)
}

// TestOutputIsExact reads long output in reads of several sizes, and also as a
// host that is slower than the container.
func TestOutputIsExact(t *testing.T) {
	if !inGuest(t) {
		return
	}
	agent, a, pattern := streamPod(t)
	mib := streamMiB()
	want := sha256.New()
	for range mib {
		want.Write(pattern)
	}
	for _, tc := range []struct {
		length uint32
		slow   bool
	}{{4 << 10, false}, {32 << 10, false}, {100_003, false}, {1 << 20, false}, {32 << 10, true}} {
		t.Run(fmt.Sprintf("%d bytes, slow %t", tc.length, tc.slow), func(t *testing.T) {
			a := api{a.AgentServiceService, t, a.ctx}
			a.run("c1", fmt.Sprintf("i=0; while [ $i -lt %d ]; do cat /pattern; i=$((i+1)); done", mib))
			got, reads := sha256.New(), 0
			for {
				r, err := a.ReadStdout(a.ctx, &agentpb.ReadStreamRequest{ContainerId: "c1", ExecId: "c1", Len: tc.length})
				a.must("read", err)
				if len(r.GetData()) == 0 {
					break
				}
				if len(r.GetData()) > int(tc.length) {
					t.Fatalf("a read of %d bytes returned %d", tc.length, len(r.GetData()))
				}
				got.Write(r.GetData())
				if reads++; tc.slow && reads%64 == 0 {
					time.Sleep(5 * time.Millisecond) // plays the slow host
				}
			}
			if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
				t.Error("other bytes arrived than were printed")
			}
			if code := a.wait("c1", "c1"); code != 0 {
				t.Errorf("ended with %d", code)
			}
			a.remove("c1")
		})
	}
	a.destroy(agent)
}

// TestEndOfOutput reads what is left after the exit code has been given out, and
// sees a grandchild that holds the pipe delay neither it nor the end.
func TestEndOfOutput(t *testing.T) {
	if !inGuest(t) {
		return
	}
	agent, a, pattern := streamPod(t)
	a.run("c1", "head -c 60000 /pattern; exit 3")
	if code := a.wait("c1", "c1"); code != 3 {
		t.Errorf("ended with %d", code)
	}
	if got := a.stdout("c1", "c1"); got != string(pattern[:60000]) {
		t.Errorf("%d bytes were left after the exit, or others", len(got))
	}
	a.remove("c1")

	ctx, cancel := context.WithTimeout(a.ctx, 10*time.Second)
	defer cancel()
	held := api{a.AgentServiceService, t, ctx}
	held.run("c2", "sleep 1000 & echo last words; exit 4")
	if got := held.stdout("c2", "c2"); got != "last words\n" {
		t.Errorf("%q", got)
	}
	if code := held.wait("c2", "c2"); code != 4 {
		t.Errorf("ended with %d", code)
	}
	held.remove("c2")
	a.destroy(agent)
}

// TestStalledPeersDelayNoKill has a container whose output nobody takes, one
// that reads no input, and a host that asks for much and reads no answer.
func TestStalledPeersDelayNoKill(t *testing.T) {
	if !inGuest(t) {
		return
	}
	agent, a, _ := streamPod(t)
	a.run("c1", "while true; do cat /pattern; done")
	a.run("c2", "sleep 1000")
	ctx := a.ctx
	written := make(chan error, 4)
	for range cap(written) {
		go func() {
			_, err := a.WriteStdin(ctx, &agentpb.WriteStreamRequest{ContainerId: "c2", ExecId: "c2", Data: make([]byte, 1<<20)})
			written <- err
		}()
	}
	stall(t, agent)
	for _, id := range []string{"c1", "c2"} {
		second, cancel := context.WithTimeout(ctx, time.Second)
		if _, err := a.SignalProcess(second, &agentpb.SignalProcessRequest{ContainerId: id, Signal: 9}); err != nil {
			t.Errorf("kill %s: %v", id, err)
		}
		cancel()
		if code := a.wait(id, id); code != 137 {
			t.Errorf("%s ended with %d", id, code)
		}
	}
	for range cap(written) {
		if err := <-written; err == nil || !strings.Contains(err.Error(), "has exited") {
			t.Errorf("write to a killed container: %v", err)
		}
	}
	a.remove("c1")
	a.remove("c2")
	a.destroy(agent)
}

// stall asks for output on a connection whose answers nobody reads.
func stall(t *testing.T, agent *instance) {
	t.Helper()
	conn, err := net.Dial("unix", agent.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	for stream := range byte(8) {
		payload := requestBytes(t, "ReadStdout", &agentpb.ReadStreamRequest{ContainerId: "c1", ExecId: "c1", Len: 1 << 20})
		frame := append([]byte{0, 0, 0, byte(len(payload)), 0, 0, 0, 2*stream + 1, 1, 0}, payload...)
		if _, err := conn.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
}
