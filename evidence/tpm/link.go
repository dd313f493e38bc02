package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-tpm/tpm2"
)

// Bounds of a response: its header, and TPM_BUFSIZE of Linux.
const (
	headerSize  = 10
	maxResponse = 4096
)

// A TPM that is busy with itself asks for the same command once more.
const (
	firstWait = 10 * time.Millisecond
	lastWait  = 2 * time.Second
)

// link carries commands one after the other. It implements transport.TPM.
type link struct {
	rw      io.ReadWriteCloser
	timeout time.Duration // of a command
	dead    error         // why the stream can no longer be believed
}

// Send returns the response to the command.
func (l *link) Send(command []byte) ([]byte, error) {
	for wait := firstWait; ; wait *= 2 {
		response, err := l.exchange(command)
		if err != nil || !busy(response) || wait > lastWait {
			return response, err
		}
		time.Sleep(wait)
	}
}

func busy(response []byte) bool {
	switch tpm2.TPMRC(binary.BigEndian.Uint32(response[6:])) {
	case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting:
		return true
	}
	return false
}

// exchange leaves a command that takes too long behind: the kernel cannot be
// interrupted while it waits for the TPM.
func (l *link) exchange(command []byte) ([]byte, error) {
	if l.dead != nil {
		return nil, fmt.Errorf("the TPM failed earlier: %w", l.dead)
	}
	type answer struct {
		response []byte
		err      error
	}
	done := make(chan answer, 1)
	go func() {
		response, err := roundTrip(l.rw, command)
		done <- answer{response, err}
	}()
	timer := time.NewTimer(l.timeout)
	defer timer.Stop()
	select {
	case a := <-done:
		l.dead = a.err
		return a.response, a.err
	case <-timer.C:
		l.dead = fmt.Errorf("the TPM has not answered for %s: %w", l.timeout, errdefs.ErrUnavailable)
		return nil, l.dead
	}
}

func roundTrip(rw io.ReadWriter, command []byte) ([]byte, error) {
	if _, err := rw.Write(command); err != nil {
		return nil, fmt.Errorf("send a command to the TPM: %w: %w", err, errdefs.ErrUnavailable)
	}
	// A device hands over the whole response at once, a socket piecemeal.
	buf := make([]byte, maxResponse)
	for n := 0; ; {
		m, err := rw.Read(buf[n:])
		n += m
		if n >= headerSize {
			switch size := binary.BigEndian.Uint32(buf[2:]); {
			case size < headerSize || size > maxResponse || uint32(n) > size:
				return nil, malformed("%d bytes that call themselves %d", n, size)
			case uint32(n) == size:
				return buf[:n], nil
			}
		}
		if m == 0 || err != nil {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("read the answer of the TPM: %w: %w", err, errdefs.ErrUnavailable)
		}
	}
}
