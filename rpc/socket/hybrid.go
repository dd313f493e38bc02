package socket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
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
	err = greet(c, a.port)
	if !stop() {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func greet(c net.Conn, port uint32) error {
	if _, err := fmt.Fprintf(c, "CONNECT %d\n", port); err != nil {
		return err
	}
	line, err := readLine(c)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("nobody listens on the guest's port: %w", err)
	}
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "OK ") {
		return fmt.Errorf("hypervisor answered %q", line)
	}
	return nil
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
