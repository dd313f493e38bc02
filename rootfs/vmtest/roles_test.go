package vmtest

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rootfs/image"
	"github.com/coffer-cc/coffer/rootfs/vm"
)

// TestRolesBesideTheService enters a guest by the debug console, as its users
// do, and runs the one-shot roles of the program that is PID 1 meanwhile.
func TestRolesBesideTheService(t *testing.T) {
	ownMachine(t)
	if chosenTransport(t) == vm.Loopback {
		t.Skip("the host has no vsock to the guest")
	}
	c := Variant{Add: []image.Addition{{Source: "/bin/busybox", Target: "/bin/busybox"}, {Source: "/bin/busybox", Target: "/bin/sh"}}}.Build(t)
	c.Words = []string{"agent.debug_console", fmt.Sprintf("agent.debug_console_vport=%d", consolePort)}
	g := Boot(t, c)
	call(t, g.Agent.CreateSandbox, &agentpb.CreateSandboxRequest{SandboxId: "pod"})
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	shell := dialPort(ctx, t, g.VM, consolePort)
	defer shell.Close()
	said := bufio.NewReader(shell)
	for _, role := range []struct {
		command string
		code    int
		line    string // of what it prints, its words with single spaces
	}{
		{"attest --nonce 5aa5", 0, `{"svn":"1","report_data":"WqU="}`},
		{"attest --decode", 0, "debug nothing is proven"},
		{"attest --explain kbs:///default/key/1", 14, "transport fault"},
		{"attest --nonce xyz", 2, "coffer-agent: attest: --nonce is not hexadecimal"},
		{"doctor", 0, "platform warning sample: proves nothing"},
		{"doctor -o json", 0, `"check": "vsock",`},
	} {
		// The mark is put together by the shell, so that the terminal's echo of the
		// line does not hold it.
		fmt.Fprintf(shell, "/init %s; echo end''ed:$?:\n", role.command)
		out := textUntil(t, said, "ended:")
		if !strings.Contains(strings.Join(strings.Fields(out), " "), role.line) || !strings.HasSuffix(out, fmt.Sprintf("ended:%d:", role.code)) {
			t.Errorf("%s: want the code %d and %q:\n%s", role.command, role.code, role.line, out)
		}
		if r := call(t, g.Health.Check, &agentpb.CheckRequest{}); r.Status != agentpb.HealthCheckResponse_SERVING {
			t.Errorf("health after %s is %v", role.command, r.Status)
		}
	}
	call(t, g.Agent.DestroySandbox, &agentpb.DestroySandboxRequest{})
	waitOff(t, g.VM)
}

// textUntil reads up to the line with the mark.
func textUntil(t *testing.T, lines *bufio.Reader, mark string) string {
	t.Helper()
	var text strings.Builder
	for {
		line, err := lines.ReadString('\n')
		text.WriteString(line)
		if err != nil {
			t.Fatalf("no line with %q: %v in\n%s", mark, err, text.String())
		}
		if strings.Contains(line, mark) {
			return strings.TrimSpace(text.String())
		}
	}
}
