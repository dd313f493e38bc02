package vm

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/containerd/errdefs"
)

// dial speaks the hybrid vsock handshake: "CONNECT port" and "OK …", one line
// each, on the unix socket of the device program.
func dial(ctx context.Context, address string) (net.Conn, error) {
	rest, ok := strings.CutPrefix(address, "hvsock://")
	if !ok {
		return nil, fmt.Errorf("dial %s: %w", address, errdefs.ErrNotImplemented)
	}
	i := strings.LastIndexByte(rest, ':')
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", rest[:i])
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	fmt.Fprintf(c, "CONNECT %s\n", rest[i+1:])
	line := ""
	for b := make([]byte, 1); !strings.HasSuffix(line, "\n"); line += string(b) {
		if _, err := c.Read(b); err != nil || len(line) > 40 {
			c.Close()
			return nil, fmt.Errorf("dial %s: nobody listens: %w", address, errdefs.ErrUnavailable)
		}
	}
	return c, nil
}
