package vm

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func TestDialHybrid(t *testing.T) {
	for _, tc := range []struct {
		name, reply string
		hang        bool
		err         error
	}{
		{name: "accepted", reply: "OK 7\nafter"},
		{name: "hung up", err: errdefs.ErrUnavailable},
		{name: "refused", reply: "NO\n", err: errdefs.ErrUnavailable},
		{name: "endless", reply: strings.Repeat("x", 100), err: errdefs.ErrUnavailable},
		{name: "silent", hang: true, err: context.DeadlineExceeded},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			listener, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			asked := make(chan string, 1)
			go func() {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				line, _ := bufio.NewReader(conn).ReadString('\n')
				asked <- line
				io.WriteString(conn, tc.reply)
				if tc.hang {
					io.Copy(io.Discard, conn)
				}
				conn.Close()
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			conn, err := dialHybrid(ctx, path, 1024)
			if !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			if line := <-asked; line != "CONNECT 1024\n" {
				t.Errorf("asked %q", line)
			}
			if err != nil {
				return
			}
			defer conn.Close()
			if rest, _ := io.ReadAll(conn); string(rest) != "after" {
				t.Errorf("the caller reads %q", rest)
			}
		})
	}
}
