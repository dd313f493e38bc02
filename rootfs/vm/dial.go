package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/mdlayher/vsock"
)

// maxReply bounds the device program's answer: "OK", a port and a newline.
const maxReply = 32

// dialVsock connects through the host's kernel. Vsock sockets are not among
// those that package net knows, hence mdlayher/vsock.
func dialVsock(_ context.Context, cid, port uint32) (net.Conn, error) {
	conn, err := vsock.Dial(cid, port, nil)
	if err != nil {
		return nil, fmt.Errorf("dial vsock port %d: %w", port, err)
	}
	return conn, nil
}

// dialHybrid connects through the unix socket of the device program:
//
//	host    CONNECT 1024\n
//	device  OK 1073741824\n     or hangs up when nobody listens in the guest
func dialHybrid(ctx context.Context, path string, port uint32) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("dial vsock device: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	reply, err := handshake(conn, port)
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("dial vsock port %d: %w", port, err)
	}
	if !strings.HasPrefix(reply, "OK ") {
		conn.Close()
		return nil, fmt.Errorf("dial vsock port %d: device said %q: %w", port, reply, errdefs.ErrUnavailable)
	}
	return conn, nil
}

// handshake reads byte by byte: what follows the line belongs to the caller.
func handshake(conn net.Conn, port uint32) (string, error) {
	if _, err := fmt.Fprintf(conn, "CONNECT %d\n", port); err != nil {
		return "", fmt.Errorf("ask vsock device: %w", err)
	}
	var line []byte
	for b := make([]byte, 1); len(line) < maxReply; line = append(line, b[0]) {
		if _, err := io.ReadFull(conn, b); errors.Is(err, io.EOF) {
			return "", fmt.Errorf("nobody listens in the guest: %w", errdefs.ErrUnavailable)
		} else if err != nil {
			return "", fmt.Errorf("read answer of vsock device: %w", err)
		}
		if b[0] == '\n' {
			return string(line), nil
		}
	}
	return string(line), nil
}
