package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rpc/socket"
)

// machineOf is an agent that runs.
type machineOf struct {
	t       *testing.T
	hw      *hardware
	broker  *evidencetest.KBS // nil without one
	address string
	config  string // file
	process *os.Process
	log     *bytes.Buffer // to be read when it has ended
	done    chan error
}

// startAgent runs the agent with further lines of its configuration.
func startAgent(t *testing.T, agent string, hw *hardware, more ...string) *machineOf {
	t.Helper()
	dir := t.TempDir()
	m := &machineOf{t: t, hw: hw, address: filepath.Join(dir, "agent.sock"), log: &bytes.Buffer{}, done: make(chan error, 1)}
	m.config = filepath.Join(dir, "agent.toml")
	settings := fmt.Sprintf("server_addr = \"unix://%s\"\nguest_components_procs = \"api-server-rest\"\n", m.address) + strings.Join(more, "\n")
	if err := os.WriteFile(m.config, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(agent, "--config", m.config)
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = m.log, m.log
	if err := hw.start(cmd); err != nil {
		t.Fatal(err)
	}
	m.process = cmd.Process
	go func() { m.done <- cmd.Wait() }()
	t.Cleanup(func() {
		if said := m.end(); t.Failed() {
			t.Logf("the agent said:\n%s", said)
		}
	})
	return m
}

// end ends the agent and returns what it said.
func (m *machineOf) end() string {
	if err := m.process.Signal(unix.SIGTERM); err == nil {
		err = <-m.done
		m.done <- err
	} else if !errors.Is(err, os.ErrProcessDone) {
		m.t.Error(err)
	}
	return m.log.String()
}

// check asks for health as a shim does, until there is an answer.
func (m *machineOf) check() error {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	for {
		conn, err := socket.Dial(ctx, "unix://"+m.address)
		if err == nil {
			client := ttrpc.NewClient(conn)
			defer client.Close()
			_, err = agentpb.NewHealthClient(client).Check(ctx, &agentpb.CheckRequest{})
			return err
		}
		select {
		case <-ctx.Done():
			m.t.Fatalf("nobody listens: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (m *machineOf) wantServing() {
	m.t.Helper()
	if err := m.check(); err != nil {
		m.t.Fatal(err)
	}
}

// wantRefused sees the reason in the answer to the host and at the end.
func (m *machineOf) wantRefused(fault string) {
	m.t.Helper()
	if err := m.check(); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), fault) {
		m.t.Errorf("health: %v, want %q", err, fault)
	}
	err := <-m.done
	m.done <- err
	if err == nil || !strings.Contains(m.log.String(), fault) {
		m.t.Errorf("the agent ended with %v", err)
	}
}

// leaksNothing has the broker reject each session once, so that each key takes
// an attestation of its own, and compares what the agent has open before and
// after fifty.
func (m *machineOf) leaksNothing() {
	m.t.Helper()
	m.wantServing()
	var asked atomic.Int64
	m.broker.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		reject := strings.Contains(r.URL.Path, "/resource/") && asked.Add(1)%2 == 1
		if reject {
			http.Error(w, `{"type":"https://github.com/confidential-containers/kbs/errors/TokenNotFound"}`, http.StatusUnauthorized)
		}
		return reject
	})
	attest := func(n int) {
		m.t.Helper()
		for range n {
			if code, body := m.secret(); code != http.StatusOK {
				m.t.Fatalf("the key: %d %q", code, body)
			}
		}
	}
	attest(5)
	before, attested := m.openFiles(), m.broker.Count("attest")
	attest(50)
	if n := m.broker.Count("attest") - attested; n != 50 {
		m.t.Errorf("%d attestations", n)
	}
	after := m.openFiles()
	for end := time.Now().Add(10 * time.Second); len(after) > len(before) && time.Now().Before(end); after = m.openFiles() {
		time.Sleep(10 * time.Millisecond) // the far side of a connection may close later
	}
	if len(after) > len(before) || m.hw.tsm.Entries() != 0 {
		m.t.Errorf("open before\n%s\nafter\n%s\nand %d report entries", strings.Join(before, "\n"), strings.Join(after, "\n"), m.hw.tsm.Entries())
	}
}

// openFiles lists what the agent has open, and its children.
func (m *machineOf) openFiles() (names []string) {
	m.t.Helper()
	list := func(pattern string, add func(path string)) {
		m.t.Helper()
		paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/%s", m.process.Pid, pattern))
		if err != nil || len(paths) == 0 {
			m.t.Fatalf("list %s of the agent: %v", pattern, err)
		}
		for _, path := range paths {
			add(path)
		}
	}
	list("fd/*", func(path string) {
		if link, err := os.Readlink(path); err == nil { // else closed by now
			names = append(names, link)
		}
	})
	list("task/*/children", func(path string) {
		if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
			names = append(names, "child "+string(text))
		}
	})
	return names
}

// secret asks for a key as a workload does.
func (m *machineOf) secret() (int, string) {
	m.t.Helper()
	return m.secretOf(evidencetest.OwnerKey)
}

func (m *machineOf) secretOf(path string) (int, string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	code, body, err := m.askSecret(ctx, path)
	if err != nil {
		m.t.Fatal(err)
	}
	return code, body
}

func (m *machineOf) askSecret(ctx context.Context, path string) (code int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:8006/cdh/resource/"+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}
