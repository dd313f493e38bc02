//go:build tracing

package tracing_test

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/coffer-cc/coffer/agent/container/containertest"
	"github.com/coffer-cc/coffer/agent/policy"
	"github.com/coffer-cc/coffer/agent/sandbox"
	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/rpc"
	"github.com/coffer-cc/coffer/rpc/tracing"
)

const (
	traceID  = "0af7651916cd43dd8448eb211c80319c"
	parentID = "b7ad6b7169203331"
	// more is beyond what the queue and a batch hold.
	more = 1000
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

type anything struct{}

func (anything) Allow(context.Context, string, policy.Input) (policy.Decision, error) {
	return policy.Decision{Allowed: true}, nil
}
func (anything) Replace(context.Context, string) error { return nil }

// serve runs the real server with a Tracer in front and returns a connection to it.
func serve(t *testing.T, tracer *tracing.Tracer) *ttrpc.Client {
	t.Helper()
	s, err := rpc.New(rpc.Deps{
		Policy:    anything{},
		Sandbox:   sandbox.New(sandbox.Deps{Containers: &containertest.Driver{}}),
		Intercept: tracer.Interceptor(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Open()
	l := listen(t)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	t.Cleanup(func() {
		client.Close()
		if err := errors.Join(s.Stop(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	})
	return client
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func start(t *testing.T, dial tracing.Dial) *tracing.Tracer {
	t.Helper()
	tracer, err := tracing.Start(t.Context(), dial)
	if err != nil {
		t.Fatal(err)
	}
	return tracer
}

// collector is an OTLP receiver on a unix socket.
func collector(t *testing.T) (tracing.Dial, func() []*tracepb.Span) {
	t.Helper()
	got := make(chan []*tracepb.Span, more)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collectorpb.ExportTraceServiceRequest
		if err := errors.Join(err, proto.Unmarshal(body, &request)); err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		for _, resource := range request.GetResourceSpans() {
			if a := resource.GetResource().GetAttributes(); len(a) != 1 || a[0].GetValue().GetStringValue() != "kata-agent" {
				t.Errorf("resource %v", a)
			}
			for _, scope := range resource.GetScopeSpans() {
				got <- scope.GetSpans()
			}
		}
	}))
	server.Listener.Close()
	server.Listener = listen(t)
	server.Start()
	t.Cleanup(server.Close)
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", server.Listener.Addr().String())
	}
	return dial, func() (all []*tracepb.Span) {
		close(got)
		for spans := range got {
			all = append(all, spans...)
		}
		return all
	}
}

func attributes(s *tracepb.Span) map[string]string {
	out := make(map[string]string)
	for _, a := range s.GetAttributes() {
		out[a.GetKey()] = a.GetValue().GetStringValue()
	}
	return out
}

func TestSpans(t *testing.T) {
	// What the host writes on the kernel command line reaches the environment.
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://evil.example/x")
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
	dial, spans := collector(t)
	tracer := start(t, dial)
	client := serve(t, tracer)
	ctx := ttrpc.WithMetadata(t.Context(), ttrpc.MD{"traceparent": {"00-" + traceID + "-" + parentID + "-01"}, "baggage": {"a=b"}})
	if _, err := agentpb.NewHealthClient(client).Check(ctx, &agentpb.CheckRequest{Service: "contents"}); err != nil {
		t.Fatal(err)
	}
	if _, err := agentpb.NewAgentServiceClient(client).PauseContainer(t.Context(), &agentpb.PauseContainerRequest{ContainerId: "c1"}); err == nil {
		t.Fatal("a container that does not exist was paused")
	}
	tracer.Stop(t.Context())
	all := spans()
	if len(all) != 2 {
		t.Fatalf("%d spans of 2 calls: %v", len(all), all)
	}
	check, pause := all[0], all[1]
	if check.GetName() != "grpc.Health/Check" || hex.EncodeToString(check.GetTraceId()) != traceID || hex.EncodeToString(check.GetParentSpanId()) != parentID {
		t.Errorf("got %v", check)
	}
	if pause.GetName() != "grpc.AgentService/PauseContainer" || len(pause.GetParentSpanId()) != 0 || attributes(pause)["container.id"] != "c1" {
		t.Errorf("got %v", pause)
	}
	usual := []string{"rpc.method", "rpc.service", "rpc.system", "rpc.ttrpc.status_code"}
	if keys := slices.Sorted(maps.Keys(attributes(check))); !slices.Equal(keys, usual) || len(check.GetEvents()) != 0 {
		t.Errorf("a span tells %v and events %v", keys, check.GetEvents())
	}
}

// check calls as often as the queue could not hold.
func check(t *testing.T, client *ttrpc.Client) {
	t.Helper()
	for range more {
		if _, err := agentpb.NewHealthClient(client).Check(t.Context(), &agentpb.CheckRequest{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNobodyCollects(t *testing.T) {
	var dialled atomic.Int64
	tracer := start(t, func(context.Context) (net.Conn, error) {
		dialled.Add(1)
		return nil, os.ErrNotExist
	})
	check(t, serve(t, tracer))
	tracer.Stop(t.Context())
	if dialled.Load() == 0 {
		t.Error("nothing was tried")
	}
}

func TestStuckCollector(t *testing.T) {
	far := make(chan net.Conn)
	tracer := start(t, func(ctx context.Context) (net.Conn, error) {
		near, other := net.Pipe() // a write blocks until somebody reads
		select {
		case far <- other:
			return near, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	client := serve(t, tracer)
	check(t, client)
	stuck := <-far
	check(t, client)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	stopped := make(chan struct{})
	go func() {
		tracer.Stop(ended)
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(5 * time.Second): // all that is queued would take ten
		t.Fatal("stopping waits for the collector")
	}
	if _, err := io.Copy(io.Discard, stuck); err != nil {
		t.Error(err)
	}
	stacks := make([]byte, 1<<20)
	if stacks = stacks[:runtime.Stack(stacks, true)]; strings.Contains(string(stacks), "batchSpanProcessor).processQueue") {
		t.Errorf("the queue is still worked on:\n%s", stacks)
	}
}

func TestNilTracer(t *testing.T) {
	var tracer *tracing.Tracer
	if tracer.Interceptor() != nil {
		t.Error("calls are intercepted")
	}
	tracer.Stop(t.Context())
}
