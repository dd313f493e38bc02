package socket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/vsock"
)

// maxAnswer bounds the line with which the hypervisor answers.
const maxAnswer = 64

// dialHybrid reaches a guest's vsock port through the socket file of its
// hypervisor:
//
//	client                     hypervisor
//	  | -- "CONNECT 1024\n" -->  |
//	  | <-- "OK 1073741824\n" -- |   and from here on the guest's stream
//
// A hypervisor whose guest does not listen closes the connection instead.
func dialHybrid(ctx context.Context, a address) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", a.path)
	if err != nil {
		return nil, err
	}
	// A deadline in the past ends any read or write when the context does.
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	port, err := greet(c, a.port)
	if !stop() {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return hybridConn{c, &vsock.Addr{ContextID: vsock.Host, Port: port}}, nil
}

// hybridConn knows under which address the guest sees it.
type hybridConn struct {
	net.Conn
	local net.Addr
}

func (c hybridConn) LocalAddr() net.Addr { return c.local }

// greet returns the port that the guest sees this side come from.
func greet(c net.Conn, port uint32) (uint32, error) {
	if _, err := fmt.Fprintf(c, "CONNECT %d\n", port); err != nil {
		return 0, err
	}
	line, err := readLine(c)
	if errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("nobody listens on the guest's port: %w", err)
	}
	if err != nil {
		return 0, err
	}
	number, ok := strings.CutPrefix(line, "OK ")
	from, err := strconv.ParseUint(number, 10, 32)
	if !ok || err != nil {
		return 0, fmt.Errorf("hypervisor answered %q", line)
	}
	return uint32(from), nil
}

// readLine reads byte by byte: what follows the newline belongs to the guest's
// stream.
func readLine(r io.Reader) (string, error) {
	var line [maxAnswer]byte
	for i := range line {
		if _, err := io.ReadFull(r, line[i:i+1]); err != nil {
			return "", err
		}
		if line[i] == '\n' {
			return string(line[:i]), nil
		}
	}
	return "", fmt.Errorf("hypervisor's answer is longer than %d bytes", maxAnswer)
}
