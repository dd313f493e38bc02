// Package tracing makes a span of each call of the host and sends it there as
// OTLP over HTTP, for any collector behind vsock port 10240 of the host. Kata's
// agent speaks a private format to a forwarder of its own on that port.
//
// OpenTelemetry's SDK and exporter (go.opentelemetry.io/otel) and
// github.com/containerd/otelttrpc, which takes the caller's trace context from
// the ttRPC metadata, are linked with the build tag "tracing" alone: each guest
// would pay 2.4 MiB for them. Without the tag the same functions do nothing.
//
// A span holds the method, its duration, its code with the message that the
// host is answered, and the id of the container; nothing else of the request
// or the reply.
package tracing

import (
	"context"
	"net"
)

// HostPort is where the host collects spans.
const HostPort = 10240

// Dial opens a connection to the collector. The context bounds the connecting.
type Dial func(context.Context) (net.Conn, error)
