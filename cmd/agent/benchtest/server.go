package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// server is a process that answers the agent's protocol: the agent, or the bare
// server.
type server struct {
	agentpb.AgentServiceService
	health agentpb.HealthService

	ctx    context.Context
	cmd    *exec.Cmd
	client *ttrpc.Client
	ready  time.Duration // from exec to the first good answer
}

// giveUp is how long a server may take to answer at all.
const giveUp = 20 * time.Second

// rules is a policy as the Kata tools write it for development: a default for
// each request, and no rule that looks into one.
const rules = `package agent_policy

default CreateContainerRequest := true
default CreateSandboxRequest := true
default ExecProcessRequest := true
default ReadStreamRequest := true
default RemoveContainerRequest := true
default SignalProcessRequest := true
default StartContainerRequest := true
default StatsContainerRequest := true
default WaitProcessRequest := true
default WriteStreamRequest := true
`

// startAgent starts the agent as a service with further settings.
func (b *bench) startAgent(settings string) (*server, error) {
	path := filepath.Join(b.dir, "agent.sock")
	config := filepath.Join(b.dir, "agent.toml")
	policy := filepath.Join(b.dir, "policy.rego")
	text := fmt.Sprintf("server_addr = %q\npolicy_file = %q\n%s\n[attestation]\ntee = \"sample\"\n", "unix://"+path, policy, settings)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(policy, []byte(rules), 0o600); err != nil {
		return nil, err
	}
	return b.serve(exec.Command(b.agent, "--config", config), path)
}

// startSandbox is startAgent with a pod in it.
func (b *bench) startSandbox(settings string) (*server, error) {
	s, err := b.startAgent(settings)
	if err != nil {
		return nil, err
	}
	if _, err := s.CreateSandbox(b.ctx, &agentpb.CreateSandboxRequest{SandboxId: "bench"}); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// startBare starts the bare server.
func (b *bench) startBare() (*server, error) {
	path := filepath.Join(b.dir, "bare.sock")
	return b.serve(exec.Command("/proc/self/exe", roleBare, path), path)
}

// serve starts a server and asks for its health until it answers.
func (b *bench) serve(cmd *exec.Cmd, path string) (*server, error) {
	os.Remove(path)
	log, err := os.Create(path + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{ctx: b.ctx, cmd: cmd}
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			s.client = ttrpc.NewClient(conn)
			s.health = agentpb.NewHealthClient(s.client)
			s.AgentServiceService = agentpb.NewAgentServiceClient(s.client)
			_, err = s.health.Check(b.ctx, &agentpb.CheckRequest{})
		}
		if err == nil {
			s.ready = time.Since(began)
			return s, nil
		}
		if time.Since(began) > giveUp || b.ctx.Err() != nil {
			s.stop()
			text, _ := os.ReadFile(path + ".log")
			return nil, fmt.Errorf("%s does not answer: %w\n%s", cmd.Path, err, text)
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// stop kills the process: nothing of it is wanted any more.
func (s *server) stop() {
	if s.client != nil {
		s.client.Close()
	}
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

// check is one call of Health.Check.
func (s *server) check(ctx context.Context) error {
	_, err := s.health.Check(ctx, &agentpb.CheckRequest{})
	return err
}
