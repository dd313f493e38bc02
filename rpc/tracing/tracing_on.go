//go:build tracing

package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/otelttrpc"
	"github.com/containerd/ttrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	maxQueue   = 512             // spans; those beyond it are dropped
	maxBatch   = 128             // spans in one request
	interval   = time.Second     // from a span to its request, at most
	sendTime   = 2 * time.Second // for one request, connecting included
	flushTime  = time.Second     // for what is queued at the end
	maxText    = 256             // bytes of one attribute; the host writes ids
	maxHeaders = 16 << 10        // bytes that a collector may answer with
)

// Tracer makes spans and sends them. A nil Tracer does neither. It is safe for
// concurrent use.
type Tracer struct {
	provider *sdktrace.TracerProvider
	cancel   context.CancelFunc // ends a request that is being sent
	idle     func()             // closes connections nobody uses
}

// Start returns a Tracer that connects when there are spans to send. It never
// delays a call: spans that the collector does not take are dropped, which the
// log says once. Use Stop to end it.
func Start(ctx context.Context, dial Dial) (*Tracer, error) {
	// The library reports here what goes wrong beside the requests.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { slog.Debug("tracing", "error", err) }))
	client := httpClient(dial)
	otlp, err := otlptracehttp.New(ctx, exporterOptions(client)...)
	if err != nil {
		return nil, fmt.Errorf("make the exporter of spans: %w", err)
	}
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(&exporter{Exporter: otlp, ctx: sending},
			sdktrace.WithMaxQueueSize(maxQueue), sdktrace.WithMaxExportBatchSize(maxBatch),
			sdktrace.WithBatchTimeout(interval), sdktrace.WithExportTimeout(sendTime)),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", "kata-agent"))),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())),
		sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{AttributeValueLengthLimit: maxText, AttributeCountLimit: 16}),
	)
	return &Tracer{provider: provider, cancel: cancel, idle: client.CloseIdleConnections}, nil
}

// exporterOptions leave nothing open that the environment could fill in: below
// PID 1 it comes from the kernel command line, which is the host's.
func exporterOptions(client *http.Client) []otlptracehttp.Option {
	return []otlptracehttp.Option{
		otlptracehttp.WithHTTPClient(client),
		otlptracehttp.WithEndpoint("host"), // for the Host header; the connection goes where dial says
		otlptracehttp.WithURLPath("/v1/traces"),
		otlptracehttp.WithInsecure(), // a vsock leads to the host and nowhere else
		otlptracehttp.WithHeaders(map[string]string{}),
		otlptracehttp.WithCompression(otlptracehttp.NoCompression),
		otlptracehttp.WithTimeout(sendTime),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: false}),
	}
}

func httpClient(dial Dial) *http.Client {
	return &http.Client{
		Timeout: sendTime,
		Transport: &http.Transport{
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			MaxConnsPerHost:        1,
			MaxResponseHeaderBytes: maxHeaders,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("a collector may not send spans elsewhere")
		},
	}
}

// exporter sends batches until ctx ends, and forgets those that do not arrive.
type exporter struct {
	*otlptrace.Exporter
	ctx  context.Context
	once sync.Once
}

// ExportSpans never fails: the library would write about it on standard error.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	if err := e.Exporter.ExportSpans(ctx, spans); err != nil {
		e.once.Do(func() { slog.WarnContext(ctx, "spans are dropped: the host does not take them", "error", err) })
	}
	return nil
}

// Interceptor makes the spans of a ttRPC server. It is nil, which means none,
// for a nil Tracer.
func (t *Tracer) Interceptor() ttrpc.UnaryServerInterceptor {
	if t == nil {
		return nil
	}
	spans := otelttrpc.UnaryServerInterceptor(
		otelttrpc.WithTracerProvider(t.provider),
		otelttrpc.WithPropagators(propagation.TraceContext{}), // no baggage: it is the host's text
	)
	return func(ctx context.Context, unmarshal ttrpc.Unmarshaler, info *ttrpc.UnaryServerInfo, call ttrpc.Method) (any, error) {
		return spans(ctx, unmarshal, info, func(ctx context.Context, unmarshal func(any) error) (any, error) {
			return call(ctx, noting(trace.SpanFromContext(ctx), unmarshal))
		})
	}
}

// noting writes down which container a request is about, when it is decoded.
func noting(span trace.Span, unmarshal func(any) error) func(any) error {
	return func(request any) error {
		err := unmarshal(request)
		if c, ok := request.(interface{ GetContainerId() string }); ok && err == nil && c.GetContainerId() != "" {
			span.SetAttributes(attribute.String("container.id", c.GetContainerId()))
		}
		return err
	}
}

// Stop sends what is queued, for a second at most and no longer than ctx, and
// drops the rest. Calls after it leave no spans.
func (t *Tracer) Stop(ctx context.Context) {
	if t == nil {
		return
	}
	ctx, done := context.WithTimeout(ctx, flushTime)
	defer done()
	defer t.idle()
	defer t.cancel()
	defer context.AfterFunc(ctx, t.cancel)()
	// The library stops nothing when its own context has ended. It comes back
	// soon all the same: without t.cancel's context no request is sent.
	if err := t.provider.Shutdown(context.WithoutCancel(ctx)); err != nil {
		slog.DebugContext(ctx, "tracing", "error", err)
	}
}
