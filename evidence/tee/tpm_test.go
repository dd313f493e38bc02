package tee

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-tpm/tpm2"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/measure"
	"github.com/coffer-cc/coffer/evidence/tpm"
)

// withTPM is a guest whose TPM is at the device.
func withTPM(t *testing.T, s *evidencetest.SWTPM, device string) host {
	t.Helper()
	h := host{root: t.TempDir(), reports: &evidencetest.TSM{}, ioctl: ioctl, openSNP: openSNP}
	h.openTPM = func(path string) (*tpm.Device, error) {
		if path != filepath.Join(h.root, device) {
			return nil, os.ErrNotExist
		}
		return tpm.New(s.Dial(t)), nil
	}
	return h
}

func openGuestTPM(t *testing.T) (*tpmGuest, *evidencetest.SWTPM) {
	t.Helper()
	s := evidencetest.StartSWTPM(t)
	s.AK(t, DefaultAKHandle, evidencetest.RSAKey)
	c, err := Detect(withTPM(t, s, "/dev/tpmrm0").drivers())
	if err != nil {
		t.Fatal(err)
	}
	return c.(*tpmGuest), s
}

func TestTPMPresent(t *testing.T) {
	s := evidencetest.StartSWTPM(t)
	h := withTPM(t, s, "/dev/tpm1")
	if c, err := Detect(h.drivers()); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "0x81010002 of /dev/tpmrm0, /dev/tpm0, /dev/tpm1, /dev/tpm2") {
		t.Errorf("without an attestation key: %v, %v", c, err)
	}
	if c, err := Select("tpm", h.drivers()); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("without an attestation key: %v, %v", c, err)
	}
	s.AK(t, DefaultAKHandle, evidencetest.RSAKey)
	s.AK(t, 0x81010077, evidencetest.RSAKey)
	configured := func(device string, handle uint32) []Driver {
		h := h
		AttestationKey(device, handle)(&h)
		return h.drivers()
	}
	for name, c := range map[string]struct {
		ds   []Driver
		want bool
	}{
		"usual":         {h.drivers(), true},
		"configured":    {configured("/dev/tpm1", 0x81010077), true},
		"other device":  {configured("/dev/tpm2", 0), false},
		"other handle":  {configured("", 0x81010003), false},
		"device, usual": {configured("/dev/tpm1", 0), true},
	} {
		got, err := Detect(c.ds)
		if c.want != (err == nil) || c.want && got.Kind() != evidence.TPM {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if Present(c.ds) {
			t.Errorf("%s: a TPM of the host makes the guest confidential", name)
		}
		// The host can put a TPM into any machine.
		if got, err := Select("sample", c.ds); err != nil || got.Kind() != evidence.Sample {
			t.Errorf("%s: sample by name: %v, %v", name, got, err)
		}
	}
	h.reports = &evidencetest.TSM{Provider: "tdx_guest"}
	if c, err := Detect(h.drivers()); err != nil || c.Kind() != evidence.TDX {
		t.Errorf("with TDX: %v, %v", c, err)
	}
	if c, err := Select("tpm", h.drivers()); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a TPM on TDX: %v, %v", c, err)
	}
}

// evidenceOf parses evidence by another way than the one it was written by, and
// verifies it as Trustee does.
func evidenceOf(t *testing.T, data json.RawMessage) (attest tpm2.TPMSAttest, pcrs [][]byte, log []byte) {
	t.Helper()
	var e struct {
		Quote struct {
			Signature []byte   `json:"signature"`
			Message   []byte   `json:"message"`
			PCRs      []string `json:"pcrs"`
		} `json:"tpm_quote"`
		Public   []byte `json:"ak_public"`
		EventLog []byte `json:"cc_eventlog"`
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		t.Fatal(err)
	}
	public, err := x509.ParsePKIXPublicKey(e.Public)
	if err != nil {
		t.Fatal(err)
	}
	if head := e.Quote.Signature[:6]; !bytes.Equal(head, []byte{0, 0x14, 0, 0x0b, 1, 0}) {
		t.Errorf("TPMT_SIGNATURE begins with %x", head)
	}
	digest := sha256.Sum256(e.Quote.Message)
	if err := rsa.VerifyPKCS1v15(public.(*rsa.PublicKey), crypto.SHA256, digest[:], e.Quote.Signature[6:]); err != nil {
		t.Error(err)
	}
	h := sha256.New()
	for _, text := range e.Quote.PCRs {
		v, err := hex.DecodeString(text)
		if err != nil || len(v) != 32 {
			t.Fatalf("PCR %q: %v", text, err)
		}
		h.Write(v)
		pcrs = append(pcrs, v)
	}
	a, err := tpm2.Unmarshal[tpm2.TPMSAttest](e.Quote.Message)
	if err != nil {
		t.Fatal(err)
	}
	q, err := a.Attested.Quote()
	if err != nil || !bytes.Equal(q.PCRDigest.Buffer, h.Sum(nil)) {
		t.Errorf("%d PCRs are not those of the quote: %v", len(pcrs), err)
	}
	return *a, pcrs, e.EventLog
}

func TestTPMEvidence(t *testing.T) {
	g, _ := openGuestTPM(t)
	for _, size := range []int{0, 20, 48, 64} {
		in := bytes.Repeat([]byte{9}, size)
		rd, err := evidence.NewReportData(in)
		if err != nil {
			t.Fatal(err)
		}
		e, err := g.Collect(t.Context(), rd)
		if err != nil || e.Kind != evidence.TPM {
			t.Fatalf("%s, %v", e.Kind, err)
		}
		want := make([]byte, 32)
		copy(want, in)
		attest, pcrs, log := evidenceOf(t, e.Data)
		if !bytes.Equal(attest.ExtraData.Buffer, want) || len(pcrs) != 24 || log != nil {
			t.Errorf("nonce %x, %d PCRs, log %x", attest.ExtraData.Buffer, len(pcrs), log)
		}
	}
}

func TestTPMAnchor(t *testing.T) {
	g, _ := openGuestTPM(t)
	if v, err := g.ReadAnchor(t.Context()); err != nil || v != [32]byte{} {
		t.Fatalf("at boot: %x, %v", v, err)
	}
	digest := sha256.Sum256([]byte("a document"))
	if err := g.ExtendAnchor(t.Context(), digest); err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256(append(make([]byte, 32), digest[:]...))
	if v, err := g.ReadAnchor(t.Context()); err != nil || v != want {
		t.Errorf("extended: %x, %v", v, err)
	}
	e, err := g.Collect(t.Context(), someData(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, pcrs, _ := evidenceOf(t, e.Data); !bytes.Equal(pcrs[8], want[:]) {
		t.Errorf("PCR 8 of the evidence is %x", pcrs[8])
	}
	if g.AnchorBinds() {
		t.Error("the host's TPM binds")
	}
	if _, anchored := any(g).(evidence.Anchored); anchored {
		t.Error("a TPM has a launch anchor")
	}
}

func TestTPMGone(t *testing.T) {
	g, s := openGuestTPM(t)
	// It dies in the middle of a call.
	open := g.host.openTPM
	g.host.openTPM = func(path string) (*tpm.Device, error) {
		d, err := open(path)
		s.Off()
		return d, err
	}
	if e, err := g.Collect(t.Context(), someData(t)); err == nil || evidence.CodeOf(err) != evidence.DriverReply {
		t.Errorf("%s, %v", e.Data, err)
	}
	g.host.openTPM = func(string) (*tpm.Device, error) { return nil, os.ErrNotExist }
	if e, err := g.Collect(t.Context(), someData(t)); evidence.CodeOf(err) != evidence.DriverDevice {
		t.Errorf("%s, %v", e.Data, err)
	}
	if _, err := g.ReadAnchor(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ReadAnchor: %v", err)
	}
	// And is back.
	s.On(t)
	g.host.openTPM = open
	if _, err := g.Collect(t.Context(), someData(t)); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// garbage answers every command with the same.
type garbage struct{ io.Reader }

func (garbage) Write(b []byte) (int, error) { return len(b), nil }
func (garbage) Close() error                { return nil }

func TestTPMGarbage(t *testing.T) {
	g, _ := openGuestTPM(t)
	for _, answer := range []string{"", "\x80\x01\x00\x00\x00\x0a\x00\x00\x00\x00", "\x80\x01\xff\xff\xff\xff\x00\x00\x00\x00", strings.Repeat("A", 9000)} {
		g.host.openTPM = func(string) (*tpm.Device, error) { return tpm.New(garbage{strings.NewReader(answer)}), nil }
		if e, err := g.Collect(t.Context(), someData(t)); err == nil || e.Data != nil {
			t.Errorf("%.20q is taken for a TPM: %s", answer, e.Data)
		}
		if v, err := g.ReadAnchor(t.Context()); err == nil {
			t.Errorf("%.20q has PCR 8 %x", answer, v)
		}
		if (host{openTPM: g.host.openTPM}).findTPM() != "" {
			t.Errorf("%.20q is a platform", answer)
		}
	}
}

// What is recorded goes along with the evidence, and the PCR replays from it.
func TestTPMRuntimeLog(t *testing.T) {
	g, _ := openGuestTPM(t)
	dir := t.TempDir()
	log, err := g.OpenLog(dir)
	if err != nil {
		t.Fatal(err)
	}
	entry := measure.Entry{Domain: "domain", Operation: "operation", Content: "content"}
	for range 2 {
		if err := log.Append(entry, 14); err != nil {
			t.Fatal(err)
		}
	}
	for _, pcr := range []uint32{0, 7, 8, 10, 16, 17, 23} {
		if err := log.Append(entry, pcr); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "9 to 15") {
			t.Errorf("PCR %d: %v", pcr, err)
		}
	}
	// Another process goes on where this one died.
	if log, err = g.OpenLog(dir); err != nil {
		t.Fatal(err)
	}
	if err := log.Append(entry, 14); err != nil {
		t.Fatal(err)
	}
	e, err := g.Collect(t.Context(), someData(t))
	if err != nil {
		t.Fatal(err)
	}
	_, pcrs, recorded := evidenceOf(t, e.Data)
	// The digest is that of the reference guest for the same entry.
	digest, err := hex.DecodeString("46df8dacf00a07d34a83cdf56d7978697790787cf2ba1432ef7c38f22cd96351")
	if err != nil {
		t.Fatal(err)
	}
	var want [32]byte
	for range 3 {
		want = sha256.Sum256(append(want[:], digest...))
	}
	if !bytes.Equal(pcrs[14], want[:]) {
		t.Errorf("PCR 14 is %x", pcrs[14])
	}
	head := append([]byte{14, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0x0b, 0}, digest...)
	if bytes.Count(recorded, head) != 3 || !bytes.HasPrefix(recorded, head) {
		t.Errorf("recorded %x", recorded)
	}
}

// lossy executes a command and loses the answer.
type lossy struct{ io.ReadWriteCloser }

func (l lossy) Read(b []byte) (int, error) {
	if _, err := l.ReadWriteCloser.Read(b); err != nil {
		return 0, err
	}
	return 0, io.EOF
}

// When the TPM goes away before or behind an extension, the next start finishes
// the entry, and the PCR is extended just once.
func TestTPMRuntimeLogCrash(t *testing.T) {
	g, s := openGuestTPM(t)
	dir := t.TempDir()
	open := g.host.openTPM
	gone := func() (*tpm.Device, error) { return nil, os.ErrNotExist }
	for name, extending := range map[string]func() (*tpm.Device, error){
		"before": gone,
		"behind": func() (*tpm.Device, error) { return tpm.New(lossy{s.Dial(t)}), nil },
	} {
		log, err := g.OpenLog(dir)
		if err != nil {
			t.Fatal(err)
		}
		opened := 0
		g.host.openTPM = func(path string) (*tpm.Device, error) {
			switch opened++; opened {
			case 1: // reads the value
				return open(path)
			case 2:
				return extending()
			}
			return gone()
		}
		if err := log.Append(measure.Entry{Domain: "d", Operation: "o", Content: "c"}, 9); err == nil || opened != 3 {
			t.Errorf("%s: opened %d times: %v", name, opened, err)
		}
		if e, err := g.Collect(t.Context(), someData(t)); err == nil {
			t.Errorf("%s: evidence beside a log that is half written: %s", name, e.Data)
		}
		g.host.openTPM = open
	}
	if _, err := g.OpenLog(dir); err != nil {
		t.Fatal(err)
	}
	e, err := g.Collect(t.Context(), someData(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, pcrs, log := evidenceOf(t, e.Data); bytes.Count(log, []byte("LEAA")) != 2 || replayed(pcrs[9]) != 2 {
		t.Errorf("%d entries, PCR extended %d times", bytes.Count(log, []byte("LEAA")), replayed(pcrs[9]))
	}
}

// replayed is how often the entry d o c went into the PCR, -1 if never so.
func replayed(value []byte) int {
	digest := sha256.Sum256([]byte("LEAA\x05\x00\x00\x00d o c"))
	var now [32]byte
	for n := range 5 {
		if bytes.Equal(value, now[:]) {
			return n
		}
		now = sha256.Sum256(append(now[:], digest[:]...))
	}
	return -1
}
