package tpm

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
)

// scripted is a stream that answers each command as it likes.
type scripted struct {
	answer func(command []byte) []byte
	rest   []byte
}

func (s *scripted) Write(command []byte) (int, error) {
	s.rest = s.answer(command)
	return len(command), nil
}

func (s *scripted) Read(b []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *scripted) Close() error { return nil }

func code(command []byte) tpm2.TPMCC { return tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) }

// between answers with what a real TPM says, as f changes it. f may speak to
// the TPM too.
func between(t *testing.T, s *evidencetest.SWTPM, f func(tpm transport.TPM, command, response []byte) []byte) *Device {
	t.Helper()
	conn := s.Dial(t)
	t.Cleanup(func() { conn.Close() })
	tpm := transport.FromReadWriter(conn)
	return New(&scripted{answer: func(command []byte) []byte {
		response, err := tpm.Send(command)
		if err != nil {
			t.Error(err)
		}
		return f(tpm, command, response)
	}})
}

func extend(t *testing.T, tpm transport.TPM) {
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: 16, Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: make([]byte, 32)}}},
	}.Execute(tpm)
	if err != nil {
		t.Error(err)
	}
}

// PCRs that change behind the quote are read again together with a new quote,
// but not for ever.
func TestQuoteRace(t *testing.T) {
	s := evidencetest.StartSWTPM(t)
	s.AK(t, ak, evidencetest.RSAKey)
	for _, tt := range []struct {
		races int
		fits  bool
	}{{0, true}, {1, true}, {quoteTries - 1, true}, {quoteTries, false}} {
		races, quotes := tt.races, 0
		d := between(t, s, func(tpm transport.TPM, command, response []byte) []byte {
			if code(command) == tpm2.TPMCCQuote {
				if quotes++; races > 0 {
					races--
					extend(t, tpm)
				}
			}
			return response
		})
		_, err := d.Quote(ak, []byte("nonce"))
		if tt.fits && (err != nil || quotes != tt.races+1) || !tt.fits && (!errdefs.IsUnavailable(err) || quotes != quoteTries) {
			t.Errorf("%d races: %d quotes, %v", tt.races, quotes, err)
		}
		d.Close()
		s.Off()
		s.On(t)
	}
}

// A single bit anywhere in an answer is refused, or does not matter.
func TestQuoteForged(t *testing.T) {
	s := evidencetest.StartSWTPM(t)
	s.AK(t, ak, evidencetest.RSAKey)
	var flip int // byte of the answer to Quote, 0 for none
	var size int
	d := between(t, s, func(_ transport.TPM, command, response []byte) []byte {
		if code(command) == tpm2.TPMCCQuote {
			if size = len(response); flip != 0 {
				response[flip] ^= 0x40
			}
		}
		return response
	})
	if _, err := d.Quote(ak, []byte("nonce")); err != nil {
		t.Fatal(err)
	}
	// Behind the signature stands the session, which has no key.
	const session = 2 + 1 + 2
	for flip = headerSize; flip < size-session; flip += 3 {
		if q, err := d.Quote(ak, []byte("nonce")); err == nil {
			t.Errorf("byte %d of %d is not looked at: %x", flip, size, q.Message)
		}
	}
	flip = 0
	if _, err := d.Quote(ak, []byte("nonce")); err != nil {
		t.Errorf("nothing forged: %v", err)
	}
}

// What the key has signed for something else is no answer.
func TestQuoteForAnother(t *testing.T) {
	s := evidencetest.StartSWTPM(t)
	s.AK(t, ak, evidencetest.RSAKey)
	t.Run("nonce", func(t *testing.T) {
		var first []byte // answer to Quote
		d := between(t, s, func(_ transport.TPM, command, response []byte) []byte {
			if code(command) == tpm2.TPMCCQuote && first == nil {
				first = response
			} else if code(command) == tpm2.TPMCCQuote {
				return first
			}
			return response
		})
		if _, err := d.Quote(ak, []byte("nonce")); err != nil {
			t.Fatal(err)
		}
		if q, err := d.Quote(ak, []byte("other")); !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "nonce") {
			t.Errorf("a quote from before: %x, %v", q.Message, err)
		}
	})
	t.Run("PCRs", func(t *testing.T) {
		d := between(t, s, func(tpm transport.TPM, command, response []byte) []byte {
			if code(command) != tpm2.TPMCCQuote {
				return response
			}
			command[len(command)-1] = 0 // the last of the selection
			response, err := tpm.Send(command)
			if err != nil {
				t.Error(err)
			}
			return response
		})
		if q, err := d.Quote(ak, []byte("nonce")); !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "PCRs 0xffff") {
			t.Errorf("a quote of some PCRs: %x, %v", q.Message, err)
		}
	})
}

func TestMalformedStream(t *testing.T) {
	header := func(size uint32, rest int) []byte {
		b := make([]byte, headerSize+rest)
		binary.BigEndian.PutUint16(b, uint16(tpm2.TPMSTNoSessions))
		binary.BigEndian.PutUint32(b[2:], size)
		return b
	}
	for name, answer := range map[string][]byte{
		"nothing":             nil,
		"half a header":       header(10, 0)[:7],
		"shorter than a head": header(9, 0),
		"endless":             header(0xffffffff, 4086),
		"cut":                 header(200, 20),
		"more than it says":   header(20, 200),
		"no parameters":       header(10, 0),
	} {
		d := New(&scripted{answer: func([]byte) []byte { return answer }})
		if _, err := d.ReadPublic(ak); err == nil {
			t.Errorf("%s: it is taken for an answer", name)
		}
		if _, err := d.Quote(ak, nil); err == nil {
			t.Errorf("%s: it is taken for an answer", name)
		}
	}
}

// A TPM that is busy is asked again, and at some time no more.
func TestBusy(t *testing.T) {
	s := evidencetest.StartSWTPM(t)
	busy := 3
	asked := 0
	d := between(t, s, func(_ transport.TPM, _, response []byte) []byte {
		if asked++; busy > 0 {
			busy--
			binary.BigEndian.PutUint32(response[6:], uint32(tpm2.TPMRCRetry))
			binary.BigEndian.PutUint32(response[2:], headerSize)
			return response[:headerSize]
		}
		return response
	})
	if _, err := d.ReadPCR(8); err != nil || asked != 4 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

// hanging never answers.
type hanging struct{ closed chan struct{} }

func (hanging) Write(b []byte) (int, error) { return len(b), nil }
func (h hanging) Read([]byte) (int, error)  { <-h.closed; return 0, errors.New("closed") }
func (h hanging) Close() error              { close(h.closed); return nil }

func TestHangs(t *testing.T) {
	d := New(hanging{make(chan struct{})})
	d.link.timeout = time.Millisecond
	for range 2 {
		if _, err := d.Quote(ak, nil); !errdefs.IsUnavailable(err) {
			t.Errorf("Quote: %v", err)
		}
	}
	d.Close()
}

// FuzzResponses lets a TPM answer anything to the commands that it is sent.
func FuzzResponses(f *testing.F) {
	s := evidencetest.StartSWTPM(f)
	s.AK(f, ak, evidencetest.RSAKey)
	record := func(do func(d *Device) error) {
		conn := s.Dial(f)
		defer conn.Close()
		tpm, all := transport.FromReadWriter(conn), []byte(nil)
		d := New(&scripted{answer: func(command []byte) []byte {
			response, err := tpm.Send(command)
			if err != nil {
				f.Fatal(err)
			}
			all = append(all, response...)
			return response
		}})
		if err := do(d); err != nil {
			f.Fatal(err)
		}
		f.Add(all)
	}
	record(func(d *Device) error { _, err := d.Quote(ak, []byte("nonce")); return err })
	record(func(d *Device) error { return d.WriteNV(dataIndex, make([]byte, 600)) })
	record(func(d *Device) error { _, err := d.ReadNV(dataIndex); return err })
	f.Fuzz(func(t *testing.T, answers []byte) {
		for _, do := range []func(d *Device) error{
			func(d *Device) error { _, err := d.Quote(ak, []byte("nonce")); return err },
			func(d *Device) error { return d.WriteNV(dataIndex, make([]byte, 600)) },
			func(d *Device) error { _, err := d.ReadNV(dataIndex); return err },
			func(d *Device) error { _, err := d.ReadPCR(8); return err },
		} {
			rest := answers
			d := New(&scripted{answer: func([]byte) []byte {
				if len(rest) < headerSize {
					return nil
				}
				// Whole responses, so that the structures are reached.
				size := max(headerSize, min(int(binary.BigEndian.Uint32(rest[2:])), len(rest)))
				one := append([]byte(nil), rest[:size]...)
				binary.BigEndian.PutUint32(one[2:], uint32(size))
				if busy(one) {
					one[9] = 1 // it would take its time
				}
				rest = rest[size:]
				return one
			}})
			if err := do(d); err != nil && err.Error() == "" {
				t.Error("an error without words")
			}
		}
	})
}
