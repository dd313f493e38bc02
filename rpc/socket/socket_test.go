package socket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/mdlayher/vsock"
)

func TestParse(t *testing.T) {
	tests := []struct {
		addr string
		want address
	}{
		{"vsock://-1:1024", address{scheme: "vsock", path: "-1", cid: anyCID, port: 1024}},
		{"vsock://3:1024", address{scheme: "vsock", path: "3", cid: 3, port: 1024}},
		{"unix:///run/a.sock", address{scheme: "unix", path: "/run/a.sock"}},
		{"unix://@agent", address{scheme: "unix", path: "@agent"}},
		{"hvsock:///run/a:b.sock:1024", address{scheme: "hvsock", path: "/run/a:b.sock", port: 1024}},
	}
	for _, tt := range tests {
		if got, err := parse(tt.addr); err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v, want %+v", tt.addr, got, err, tt.want)
		}
	}
	for _, addr := range []string{
		"", "/run/a.sock", "unix://", "unix://@", "unix://a\x00b", "vsock://", "vsock://3", "vsock://:1024",
		"vsock://3:", "vsock://3:0", "vsock://3:4294967295", "vsock://3:4294967296", "vsock://-2:1024",
		"vsock://4294967295:1", "vsock://x:1", "hvsock:///run/a.sock", "hvsock://:1024", "tcp://localhost:1",
	} {
		if _, err := parse(addr); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: got %v, want an invalid argument", addr, err)
		}
	}
}

// echo serves l by sending every byte back, until l closes.
func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := Listen(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// roundTrip sends 1 MiB and expects it back.
func roundTrip(t *testing.T, c net.Conn) {
	t.Helper()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	failed := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		failed <- err
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Error("the bytes that came back differ")
	}
}

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	for _, addr := range []string{"unix://" + dir + "/a.sock", fmt.Sprintf("unix://@coffer-test-%d", os.Getpid())} {
		go echo(listen(t, addr))
		c, err := Dial(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		roundTrip(t, c)
	}
}

func TestUnixFileMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	listen(t, "unix://"+path)
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %o, want 600", fi.Mode().Perm())
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	dead := listen(t, "unix://"+path)
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()

	go echo(listen(t, "unix://"+path))
	c, err := Dial(t.Context(), "unix://"+path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()

	if _, err := Listen(t.Context(), "unix://"+path); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("socket in use: got %v", err)
	}
}

func TestOtherFilesAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), "unix://"+path); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file is gone: %v", err)
	}
}

func TestListenRefusesHybrid(t *testing.T) {
	if _, err := Listen(t.Context(), "hvsock:///run/x.sock:1"); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("got %v", err)
	}
}

// hypervisor speaks the host side of hybrid vsock with a given answer, then
// echoes.
func hypervisor(t *testing.T, answer string) (path string, asked <-chan string) {
	path = filepath.Join(t.TempDir(), "vm.sock")
	l := listen(t, "unix://"+path)
	ch := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		line, err := readLine(c)
		if err != nil {
			return
		}
		ch <- line
		io.WriteString(c, answer)
		if strings.HasSuffix(answer, "\n") {
			io.Copy(c, c)
		}
	}()
	return path, ch
}

func TestHybrid(t *testing.T) {
	path, asked := hypervisor(t, "OK 1073741824\n")
	c, err := Dial(t.Context(), "hvsock://"+path+":1024")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := <-asked; got != "CONNECT 1024" {
		t.Errorf("asked %q", got)
	}
	roundTrip(t, c)
}

func TestHybridRefused(t *testing.T) {
	tests := []struct{ name, answer, want string }{
		{"closed", "", "nobody listens"},
		{"other word", "NO 1\n", `hypervisor answered "NO 1"`},
		{"endless line", strings.Repeat("O", 4096), "longer than 64 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, _ := hypervisor(t, tt.answer)
			_, err := Dial(t.Context(), "hvsock://"+path+":1024")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// TestHybridSilent dials a hypervisor that accepts and never answers.
func TestHybridSilent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vm.sock")
	l := listen(t, "unix://"+path)
	go func() {
		if c, err := l.Accept(); err == nil {
			io.Copy(io.Discard, c)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, "hvsock://"+path+":1024"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// peers is a listener whose connections come from the given CIDs.
type peers struct {
	net.Listener
	cids   []uint32
	closed []uint32
}

func (p *peers) Accept() (net.Conn, error) {
	if len(p.cids) == 0 {
		return nil, net.ErrClosed
	}
	cid := p.cids[0]
	p.cids = p.cids[1:]
	return &peer{cid: cid, from: p}, nil
}

type peer struct {
	net.Conn
	cid  uint32
	from *peers
}

func (c *peer) RemoteAddr() net.Addr { return &vsock.Addr{ContextID: c.cid, Port: 9} }
func (c *peer) Close() error         { c.from.closed = append(c.from.closed, c.cid); return nil }

func TestPeers(t *testing.T) {
	tests := []struct {
		name     string
		loopback bool
		admitted []uint32
		refused  []uint32
	}{
		{"host alone", false, []uint32{2}, []uint32{0, 1, 3, 4294967295}},
		{"with loopback", true, []uint32{2, 1}, []uint32{0, 3, 4294967295}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &peers{cids: append(append([]uint32{}, tt.refused...), tt.admitted...)}
			l := &hostListener{Listener: p, loopback: tt.loopback}
			for _, want := range tt.admitted {
				c, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if got := c.RemoteAddr().(*vsock.Addr).ContextID; got != want {
					t.Errorf("admitted CID %d, want %d", got, want)
				}
			}
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("end of the listener: got %v", err)
			}
			if fmt.Sprint(p.closed) != fmt.Sprint(tt.refused) {
				t.Errorf("closed %v, want %v", p.closed, tt.refused)
			}
		})
	}
}

// pieces records the length of each write and fails once budget is used up.
type pieces struct {
	net.Conn
	lens   []int
	budget int
}

func (p *pieces) Write(b []byte) (int, error) {
	n := min(len(b), p.budget)
	p.budget -= n
	p.lens = append(p.lens, n)
	if n < len(b) {
		return n, io.ErrClosedPipe
	}
	return n, nil
}

func TestWriteIsSplit(t *testing.T) {
	tests := []struct {
		name         string
		size, budget int
		writes       int
		failed       bool
	}{
		{"empty", 0, 1 << 30, 1, false},
		{"one piece", maxWrite, 1 << 30, 1, false},
		{"one byte more", maxWrite + 1, 1 << 30, 2, false},
		{"1 MiB", 1 << 20, 1 << 30, 37, false},
		{"peer goes", 1 << 20, maxWrite + 5, 2, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &pieces{budget: tt.budget}
			n, err := splitConn{p}.Write(make([]byte, tt.size))
			if n != min(tt.size, tt.budget) || (err != nil) != tt.failed {
				t.Errorf("wrote %d, %v", n, err)
			}
			if len(p.lens) != tt.writes {
				t.Errorf("%d pieces, want %d", len(p.lens), tt.writes)
			}
			for _, l := range p.lens {
				if l > maxWrite {
					t.Errorf("piece of %d bytes", l)
				}
			}
		})
	}
}

// TestVsock opens a real listener; the round trip over a real vsock needs a
// guest and is made there.
func TestVsock(t *testing.T) {
	l, err := Listen(t.Context(), "vsock://-1:47113", WithLoopback())
	if err != nil {
		t.Skipf("this kernel has no vsock transport: %v", err)
	}
	defer l.Close()
	if _, err := Dial(t.Context(), "vsock://-1:47113"); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("dial of CID -1: got %v", err)
	}
}
