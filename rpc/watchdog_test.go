package rpc

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// logged catches the log until the test ends.
func logged(t *testing.T) *bytes.Buffer {
	t.Helper()
	old := slog.Default()
	t.Cleanup(func() { slog.SetDefault(old) })
	var buf bytes.Buffer
	slog.SetDefault(slog.New(slog.NewTextHandler(&buf, nil)))
	return &buf
}

func TestWhichCallsAreStuck(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tc := range []struct {
		name, request string
		ctx           context.Context
		after         time.Duration
		want          bool
	}{
		{"slow", "StartContainerRequest", t.Context(), 61 * time.Second, true},
		{"in time", "StartContainerRequest", t.Context(), 59 * time.Second, false},
		{"waits for a workload", "WaitProcessRequest", t.Context(), 1000 * time.Hour, false},
		{"pulls an image", "CreateContainerRequest", t.Context(), time.Hour, false},
		{"nobody waits any more", "WaitProcessRequest", gone, 16 * time.Second, true},
		{"nobody waits since now", "WaitProcessRequest", gone, 14 * time.Second, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := watchdog{grace: graceTime, brief: briefTime}
			end := w.begin(tc.ctx, tc.request)
			start := time.Now()
			w.stuck(start)
			calls, dump := w.stuck(start.Add(tc.after))
			if (len(calls) > 0) != tc.want || dump != tc.want {
				t.Errorf("stuck %v, dump %v, want %v", calls, dump, tc.want)
			}
			if again, _ := w.stuck(start.Add(tc.after)); len(again) > 0 {
				t.Error("reported twice")
			}
			end()
			if len(w.calls) > 0 {
				t.Error("the call is still watched")
			}
		})
	}
}

func TestDumpsAreBounded(t *testing.T) {
	w := watchdog{}
	for i := range 3 * maxDumps {
		defer w.begin(t.Context(), "StartContainerRequest")()
		if _, dump := w.stuck(time.Now().Add(time.Hour)); dump != (i < maxDumps) {
			t.Errorf("dump %d: %v", i, dump)
		}
	}
}

// A handler that ignores the end of its call shows up in the log with the place
// where it stands, and the host learns nothing of that.
func TestStuckCallIsShown(t *testing.T) {
	log := logged(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	f := newFixture(t, func(g *gate) map[string]ttrpc.Method {
		return one("Stuck", method(g, ruled, func(ctx context.Context, _ *agentpb.StartContainerRequest) (*emptypb.Empty, error) {
			<-ctx.Done()
			standHere(entered, leave)
			return empty, nil
		}))
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := f.dial(t).Call(ctx, testService, "Stuck", &agentpb.StartContainerRequest{ContainerId: "c1"}, &emptypb.Empty{})
	if err == nil {
		t.Fatal("the call ended well")
	}
	<-entered
	f.gate.watch.look(time.Now()) // sees that the caller is gone
	f.gate.watch.look(time.Now().Add(graceTime))
	text := log.String()
	close(leave)
	for _, want := range []string{"call is stuck", "StartContainerRequest", "standHere", "watchdog_test.go:"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the log: %.2000s", want, text)
		}
	}
	if strings.Contains(text, "(0x") || strings.Contains(text, "+0x") {
		t.Error("the log shows arguments")
	}
	if strings.Contains(err.Error(), "goroutine") {
		t.Errorf("the host sees %q", err)
	}
}

//go:noinline
func standHere(entered, leave chan struct{}) {
	close(entered)
	<-leave
}
