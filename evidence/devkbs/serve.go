package devkbs

import (
	"context"
	"crypto/tls"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/containerd/errdefs"
)

// Limits of the server against callers that are slow or many.
const (
	headerTimeout  = 10 * time.Second
	requestTimeout = time.Minute
	idleTimeout    = time.Minute
	shutdownWait   = 2 * time.Second
	maxHeaderBytes = 64 << 10
)

// Folder opens a directory whose files repository/type/tag are resources. A
// link that leads out of it is not followed.
func Folder(dir string) (fs.FS, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open resources: %w", err)
	}
	return root.FS(), nil
}

// Listen opens a TCP address. Any that is not loopback needs insecure, since
// whoever reaches the broker gets what it holds for the price of sample
// evidence.
func Listen(addr string, insecure bool) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("address %q is not host:port: %w", addr, errdefs.ErrInvalidArgument)
	}
	if ip := net.ParseIP(host); !insecure && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("address %q is not loopback; use --insecure-listen: %w", addr, errdefs.ErrPermissionDenied)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// Serve answers on l until ctx ends, over TLS if config is not nil. It closes
// l, waits a moment for replies under way, and returns nil for an end by ctx.
func (s *Server) Serve(ctx context.Context, l net.Listener, config *tls.Config) error {
	if config != nil {
		l = tls.NewListener(l, config)
	}
	s.options.Log.WarnContext(ctx, "development key broker: not for production",
		"address", l.Addr().String(), "tls", config != nil, "sample", s.options.AllowSample)
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	err := server.Serve(l)
	if !stop() {
		<-stopped
		return nil
	}
	return fmt.Errorf("serve: %w", err)
}
