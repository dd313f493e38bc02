//go:build !tracing

package tracing

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// Who asks this build for spans reads in the log that there are none.
func TestNotBuiltIn(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	tracer, err := Start(t.Context(), nil)
	if err != nil || tracer != nil {
		t.Errorf("got %v, %v", tracer, err)
	}
	if n := strings.Count(log.String(), "not built into this agent"); n != 1 {
		t.Errorf("%d warnings: %s", n, log.String())
	}
	if tracer.Interceptor() != nil {
		t.Error("calls are intercepted")
	}
	tracer.Stop(t.Context())
}
