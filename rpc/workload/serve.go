package workload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
)

// Address is where workloads look for the interface.
const Address = "127.0.0.1:8006"

// Limits against containers that are slow or many. A container cannot take
// more of the agent's descriptors than maxConns.
const (
	maxConns      = 64
	maxHeader     = 16 << 10
	headerTimeout = 5 * time.Second
	idleTimeout   = 10 * time.Second
	writeTimeout  = resourceTimeout + 10*time.Second
	shutdownWait  = 2 * time.Second
)

// Listen opens addr, which has to be an address of the loopback interface.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("workload address is not on loopback: %w", errdefs.ErrInvalidArgument)
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for workloads: %w", err)
	}
	return l, nil
}

// Serve answers on l until ctx ends, then waits a moment for replies under way
// and cuts the rest. It closes l, and returns nil when ctx was the reason.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(io.Discard, "", 0), // what it would say is chosen by containers
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
	err := server.Serve(newLimit(l, maxConns))
	if !stop() {
		<-stopped
		return nil
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve workloads: %w", err)
}
