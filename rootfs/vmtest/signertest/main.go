// Signer is the hardware behind the kernel module of rootfs/vmtest/module, in a
// test image alone. The module starts it, outside of the agent's root, with
// itself as standard input and output, and it answers for the
// evidencetest.Machine in its file:
//
//	signer ── hello ──▶ module     what the guest's kernel is to have
//	       ◀─ question ─           platform.h has the structures
//	       ── answer ─▶
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
)

const machineFile = "/usr/lib/coffer-test/machine.json"

// Kinds of questions, and devices to make.
const (
	askReport   = 1
	askTDReport = 2

	sevGuest = 1 << 0
	tdxGuest = 1 << 1
)

type hello struct {
	Provider [16]byte
	Devices  uint32
}

type question struct {
	Number, Kind uint32
	Data         [64]byte
}

type answer struct {
	Number              uint32
	Error               int32
	ReportLen, CertsLen uint32
}

func main() {
	if err := serve(); err != nil {
		// Nobody waits for this process, and what is its standard error is the module.
		if console, oerr := os.OpenFile("/dev/console", os.O_WRONLY, 0); oerr == nil {
			fmt.Fprintln(console, "coffer-signer:", err)
		}
		os.Exit(1)
	}
}

func serve() error {
	text, err := os.ReadFile(machineFile)
	if err != nil {
		return err
	}
	var m evidencetest.Machine
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("read %s: %w", machineFile, err)
	}
	if err := greet(os.Stdout, &m); err != nil {
		return err
	}
	for {
		var q question
		switch err := binary.Read(os.Stdin, binary.NativeEndian, &q); {
		case errors.Is(err, unix.EAGAIN): // who asked has given up
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read question: %w", err)
		}
		if m.Dies {
			return errors.New("dies as it was told")
		}
		if m.Mute {
			continue
		}
		// A late answer is to nobody.
		if err := reply(os.Stdout, q, &m); err != nil && !errors.Is(err, unix.ESTALE) {
			return fmt.Errorf("write answer: %w", err)
		}
	}
}

// greet says what the guest's kernel is to have.
func greet(module io.Writer, m *evidencetest.Machine) error {
	var h hello
	if copy(h.Provider[:len(h.Provider)-1], m.Provider) < len(m.Provider) {
		return fmt.Errorf("provider %q is too long", m.Provider)
	}
	if m.SEVGuest {
		h.Devices |= sevGuest
	}
	if m.TDXGuest {
		h.Devices |= tdxGuest
	}
	if err := binary.Write(module, binary.NativeEndian, h); err != nil {
		return fmt.Errorf("write hello: %w", err)
	}
	return nil
}

// reply answers with one write.
func reply(module io.Writer, q question, m *evidencetest.Machine) error {
	report, certs, err := ask(q, m)
	a := answer{Number: q.Number, ReportLen: uint32(len(report)), CertsLen: uint32(len(certs))}
	if err != nil {
		errno := unix.EIO
		errors.As(err, &errno)
		a, report, certs = answer{Number: q.Number, Error: -int32(errno)}, nil, nil
	}
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, a); err != nil {
		return err
	}
	b.Write(report)
	b.Write(certs)
	_, err = module.Write(b.Bytes())
	return err
}

func ask(q question, m *evidencetest.Machine) (report, certs []byte, err error) {
	switch q.Kind {
	case askReport:
		return m.Report(q.Data)
	case askTDReport:
		report, err = m.TDReport(q.Data)
		return report, nil, err
	}
	return nil, nil, unix.EINVAL
}
