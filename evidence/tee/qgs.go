package tee

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// The quoting service of the host, as far as a guest reaches it by itself
// (Intel DCAP: QuoteGeneration/quote_wrapper/qgs_msg_lib). Each message has its
// length before it, in network order; the rest is little endian:
//
//	major u16, minor u16, type u32, size u32, error u32
//	request:  size of report u32, size of ids u32, report
//	response: size of id u32, size of quote u32, id, quote
const (
	qgsPort    = 4050
	qgsTimeout = 30 * time.Second
	qgsHeader  = 16
	qgsMax     = 128 << 10
)

// attestConf is where Intel's library looks for the port, one line port=N.
const attestConf = "etc/tdx-attest.conf"

// QGSDialer connects to the given vsock port of the host.
type QGSDialer func(ctx context.Context, port uint32) (net.Conn, error)

func (h host) quoteOverVsock(ctx context.Context, report []byte) ([]byte, error) {
	if h.qgs == nil {
		return nil, fmt.Errorf("no report interface and no way to the quoting service: %w", errdefs.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(ctx, qgsTimeout)
	defer cancel()
	c, err := h.qgs(ctx, h.qgsPort())
	if err != nil {
		return nil, fmt.Errorf("reach the quoting service of the host: %w", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if _, err := c.Write(qgsRequest(report)); err != nil {
		return nil, fmt.Errorf("ask the quoting service: %w", err)
	}
	quote, err := qgsReply(c)
	if err != nil {
		return nil, fmt.Errorf("quoting service: %w", err)
	}
	return quote, nil
}

func qgsRequest(report []byte) []byte {
	size := uint32(qgsHeader + 8 + len(report))
	m := binary.BigEndian.AppendUint32(nil, size)
	m = binary.LittleEndian.AppendUint16(m, 1) // version 1.0
	m = binary.LittleEndian.AppendUint16(m, 0)
	for _, v := range []uint32{0 /* GET_QUOTE_REQ */, size, 0, uint32(len(report)), 0} {
		m = binary.LittleEndian.AppendUint32(m, v)
	}
	return append(m, report...)
}

// qgsReply reads one answer. All of it comes from the host.
func qgsReply(r io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, fmt.Errorf("read its answer: %w", err)
	}
	n := binary.BigEndian.Uint32(length[:])
	if n < qgsHeader+8 || n > qgsMax {
		return nil, fmt.Errorf("answer of %d bytes: %w", n, errdefs.ErrInvalidArgument)
	}
	m := make([]byte, n)
	if _, err := io.ReadFull(r, m); err != nil {
		return nil, fmt.Errorf("read its answer: %w", err)
	}
	field := func(at int) uint32 { return binary.LittleEndian.Uint32(m[at:]) }
	if kind, code := field(4), field(12); kind != 1 || code != 0 {
		return nil, fmt.Errorf("it answers with message %d, error %#x: %w", kind, code, errdefs.ErrUnavailable)
	}
	id, quote := uint64(field(16)), uint64(field(20))
	if rest := m[qgsHeader+8:]; id+quote <= uint64(len(rest)) {
		return rest[id : id+quote], nil
	}
	return nil, fmt.Errorf("answer ends early: %w", errdefs.ErrInvalidArgument)
}

// qgsPort is the image's choice, else the service's usual port.
func (h host) qgsPort() uint32 {
	f, err := os.Open(filepath.Join(h.root, attestConf))
	if err != nil {
		return qgsPort
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 4096))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), "=")
		if n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32); err == nil && strings.TrimSpace(name) == "port" {
			return uint32(n)
		}
	}
	return qgsPort
}
