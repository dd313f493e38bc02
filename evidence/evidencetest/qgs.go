package evidencetest

import (
	"encoding/binary"
	"fmt"
	"io"
)

// QGSPort is the vsock port of the quoting service.
const QGSPort = 4050

// qgsHead is the size of a message with no report and no quote in it.
const qgsHead = 24

// ServeQGS is the quoting service of the host for one request (Intel DCAP,
// qgs_msg_lib): it quotes reports of the platform's own processor. The function
// answer makes the message of a quote, QGSAnswer or worse.
func (p *TDX) ServeQGS(c io.ReadWriter, answer func(quote []byte) []byte) error {
	m := make([]byte, 4+qgsHead+tdreportSize)
	if _, err := io.ReadFull(c, m); err != nil {
		return fmt.Errorf("read a request: %w", err)
	}
	size, body := binary.BigEndian.Uint32(m), m[4:]
	field := func(at int) uint32 { return binary.LittleEndian.Uint32(body[at:]) }
	if size != uint32(len(body)) || field(0) != 1 || field(4) != 0 || field(8) != size || field(16) != tdreportSize || field(20) != 0 {
		return fmt.Errorf("request %x", m[:4+qgsHead])
	}
	in, err := p.reported(body[qgsHead:])
	if err != nil {
		return err
	}
	quote, err := p.Quote(in)
	if err != nil {
		return err
	}
	_, _ = c.Write(answer(quote)) // a guest may hang up early
	return nil
}

// QGSAnswer is the message that holds the quote.
func QGSAnswer(quote []byte) []byte {
	size := uint32(qgsHead + len(quote))
	m := binary.BigEndian.AppendUint32(nil, size)
	for _, v := range []uint32{1 /* version 1.0 */, 1 /* GET_QUOTE_RESP */, size, 0, 0, uint32(len(quote))} {
		m = binary.LittleEndian.AppendUint32(m, v)
	}
	return append(m, quote...)
}
