package tee

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/kbs"
)

// The kernel's numbers stand in arch/s390/include/uapi/asm/uvdevice.h.
func TestUVStructures(t *testing.T) {
	var cb uvioCB
	var a uvioAttest
	for name, c := range map[string]struct{ got, want uintptr }{
		"uvio_ioctl_cb":               {unsafe.Sizeof(cb), 0x40},
		"uvio_ioctl_cb.uv_rc":         {unsafe.Offsetof(cb.rc), 0x04},
		"uvio_ioctl_cb.uv_rrc":        {unsafe.Offsetof(cb.rrc), 0x06},
		"uvio_ioctl_cb.argument_addr": {unsafe.Offsetof(cb.argument), 0x08},
		"uvio_ioctl_cb.argument_len":  {unsafe.Offsetof(cb.argumentLen), 0x10},
		"uvio_attest":                 {unsafe.Sizeof(a), 0x138},
		"uvio_attest.arcb_addr":       {unsafe.Offsetof(a.blob), 0x00},
		"uvio_attest.meas_addr":       {unsafe.Offsetof(a.measurement), 0x08},
		"uvio_attest.add_data_addr":   {unsafe.Offsetof(a.additional), 0x10},
		"uvio_attest.user_data":       {unsafe.Offsetof(a.userData), 0x18},
		"uvio_attest.config_uid":      {unsafe.Offsetof(a.configUID), 0x118},
		"uvio_attest.arcb_len":        {unsafe.Offsetof(a.blobLen), 0x128},
		"uvio_attest.meas_len":        {unsafe.Offsetof(a.measureLen), 0x12c},
		"uvio_attest.add_data_len":    {unsafe.Offsetof(a.additionalLen), 0x130},
		"uvio_attest.user_data_len":   {unsafe.Offsetof(a.userDataLen), 0x134},
		"UVIO_IOCTL_ATT":              {uvioATT, 0xc0407501},
	} {
		if c.got != c.want {
			t.Errorf("%s is %#x, want %#x", name, c.got, c.want)
		}
	}
}

// What the kernel reads stands in memory as the machine has it: here the whole
// of the structure for a guest whose bytes stand either way round.
func TestUVRequestBytes(t *testing.T) {
	g, uv := onUV(t)
	var seen []byte
	uv.Before = func(memory []byte) { seen = bytes.Clone(memory) }
	challenge, _ := uv.Challenge()
	if _, err := g.CollectFor(t.Context(), challenge, filled(t, 0xab)); err != nil {
		t.Fatal(err)
	}
	numbers := map[string]string{"big": "0000006c" + "00000040" + "00000040" + "00400000", "little": "6c000000" + "40000000" + "40000000" + "40000000"}
	order := "little"
	if one := uint16(1); *(*byte)(unsafe.Pointer(&one)) == 0 {
		order = "big"
	}
	if got := hex.EncodeToString(seen[0x128:0x138]); got != numbers[order] {
		t.Errorf("lengths are %s, want %s", got, numbers[order])
	}
	user := append(bytes.Repeat([]byte{0xab}, 64), make([]byte, 0x100-64)...)
	if !bytes.Equal(seen[0x18:0x118], user) {
		t.Errorf("user data are %x", seen[0x18:0x118])
	}
}

// onUV is a guest under an ultravisor.
func onUV(t *testing.T) (*seGuest, *evidencetest.Ultravisor) {
	t.Helper()
	uv := evidencetest.NewUltravisor(t)
	root := t.TempDir()
	put(t, root, "dev/uv", nil)
	put(t, root, "sys/firmware/uv/prot_virt_guest", []byte("1\n"))
	return &seGuest{turn: newTurn(), host: host{root: root, reports: &evidencetest.TSM{}, ioctl: uv.Ioctl}}, uv
}

func filled(t *testing.T, b byte) evidence.ReportData {
	t.Helper()
	rd, err := evidence.NewReportData(bytes.Repeat([]byte{b}, 64))
	if err != nil {
		t.Fatal(err)
	}
	return rd
}

func TestSEEvidence(t *testing.T) {
	g, uv := onUV(t)
	challenge, verify := uv.Challenge()
	e, err := g.CollectFor(t.Context(), challenge, filled(t, 7))
	if err != nil || e.Kind != evidence.SE {
		t.Fatalf("CollectFor = %s, %v", e.Kind, err)
	}
	if err := verify(e.Data, bytes.Repeat([]byte{7}, 64)); err != nil {
		t.Error(err)
	}
	if err := verify(e.Data, bytes.Repeat([]byte{8}, 64)); err == nil {
		t.Error("the measurement fits other report data")
	}
	var members map[string]string
	if err := json.Unmarshal(e.Data, &members); err != nil {
		t.Fatalf("a member is no text: %v", err)
	}
	for _, name := range []string{"measurement", "additional_data", "user_data", "cuid", "encr_measurement_key", "encr_request_nonce", "image_hdr_tags"} {
		if members[name] == "" {
			t.Errorf("no %s", name)
		}
		delete(members, name)
	}
	if len(members) > 0 {
		t.Errorf("members that Trustee does not know: %v", members)
	}
	if _, ok := evidence.Collector(g).(evidence.Anchored); ok {
		t.Error("there is no anchor that the guest could read")
	}
	if _, err := g.Collect(t.Context(), filled(t, 7)); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("Collect without a challenge: %v", err)
	}
}

// The firmware may have less to add than the verifier left room for.
func TestSEAdditionalData(t *testing.T) {
	g, uv := onUV(t)
	challenge, _ := uv.Challenge()
	for _, size := range []int{32, 64} {
		uv.Additional = bytes.Repeat([]byte{3}, size)
		e, err := g.CollectFor(t.Context(), challenge, filled(t, 7))
		var r seResponse
		if err != nil || json.Unmarshal(e.Data, &r) != nil || !bytes.Equal(r.Additional, uv.Additional) {
			t.Errorf("%d bytes: %x, %v", size, r.Additional, err)
		}
	}
	uv.Claim = 65
	if _, err := g.CollectFor(t.Context(), challenge, filled(t, 7)); !errdefs.IsDataLoss(err) {
		t.Errorf("more than fits: %v", err)
	}
}

func TestSERefusals(t *testing.T) {
	g, uv := onUV(t)
	challenge, _ := uv.Challenge()
	replace := func(name string, v any) string {
		var m map[string]any
		if err := json.Unmarshal([]byte(challenge), &m); err != nil {
			t.Fatal(err)
		}
		m[name] = v
		if v == nil {
			delete(m, name)
		}
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, text := range map[string]string{
		"a nonce":        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
		"nothing":        "",
		"blob":           replace("request_blob", nil),
		"blob, no text":  replace("request_blob", 7),
		"measurement":    replace("measurement_size", 0),
		"measurement +":  replace("measurement_size", 0x8001),
		"measurement -":  replace("measurement_size", -1),
		"additional":     replace("additional_size", 0),
		"additional +":   replace("additional_size", 1<<31),
		"key":            replace("encr_measurement_key", ""),
		"nonce of it":    replace("encr_request_nonce", nil),
		"tags, one less": replace("image_hdr_tags", make([]byte, 207)),
		"tags, one more": replace("image_hdr_tags", make([]byte, 209)),
	} {
		if _, err := g.CollectFor(t.Context(), text, filled(t, 7)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if uv.Asked != 0 {
		t.Errorf("the firmware was asked %d times", uv.Asked)
	}
	for rc, want := range map[uint16]string{0x010c: "host key", 0x0005: "0x5", 0: "0x0"} {
		uv.RC = &rc
		if _, err := g.CollectFor(t.Context(), challenge, filled(t, 7)); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("return code %#x: %v", rc, err)
		}
	}
	uv.Err = unix.EIO
	if _, err := g.CollectFor(t.Context(), challenge, filled(t, 7)); err == nil {
		t.Error("a fault of the device is none")
	}
	g.host.root = t.TempDir()
	if _, err := g.CollectFor(t.Context(), challenge, filled(t, 7)); err == nil || !strings.Contains(err.Error(), "uvdevice") {
		t.Errorf("no device: %v", err)
	}
}

// The expected codes are those of IBM's s390-tools for the same data.
func TestSEMeasurement(t *testing.T) {
	fill := func(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }
	tags := append(append(append(fill(1, 64), fill(2, 64)...), fill(3, 64)...), fill(4, 16)...)
	const want = "88794c62cce7bcf26216deb3f48f13fea6374b6d7e35bcc5c2ce68121db6f45d" +
		"fc8c171856463549408bf8e7d1aca11efad0a878af97dc9e21a1fc2a32f3a675"
	got := evidencetest.SEMeasurement(fill(0x41, 64), tags, fill(5, 16), fill(7, 256), fill(8, 16), fill(9, 128))
	if hex.EncodeToString(got) != want {
		t.Errorf("%x, want %s", got, want)
	}
}

// The client hands the challenge on, hashes with SHA-512, and sends what the
// ultravisor says.
func TestSEHandshake(t *testing.T) {
	for name, extra := range map[string]string{"selected": `{"selected-hash-algorithm":"sha512"}`, "left open": `""`} {
		t.Run(name, func(t *testing.T) {
			g, uv := onUV(t)
			challenge, verify := uv.Challenge()
			k := evidencetest.NewKBS(t, devkbs.Options{Resources: evidencetest.Resources(nil)})
			attested := false
			k.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, "/auth") {
					http.SetCookie(w, &http.Cookie{Name: "kbs-session-id", Value: "1"})
					text, err := json.Marshal(challenge)
					_, werr := fmt.Fprintf(w, `{"nonce":%s,"extra-params":%s}`, text, extra)
					return err == nil && werr == nil
				}
				var body map[string]any
				err := json.NewDecoder(r.Body).Decode(&body)
				runtime := dig(body, "runtime-data")
				bound, berr := json.Marshal(map[string]any{"additional-evidence": "", "nonce": challenge, "tee-pubkey": runtime["tee-pubkey"]})
				primary, perr := json.Marshal(dig(body, "tee-evidence", "primary_evidence"))
				digest := sha512.Sum512(bound)
				if err := errors.Join(err, berr, perr, verify(primary, digest[:])); err != nil || runtime["nonce"] != challenge {
					t.Errorf("attest: %v", err)
				}
				attested = true
				w.WriteHeader(http.StatusTeapot)
				return true
			})
			c, err := kbs.New(kbs.Config{URL: k.URL, Collector: g, Backoff: time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Resource(t.Context(), uri(t)); err == nil || !attested {
				t.Errorf("Resource: %v, evidence came: %v", err, attested)
			}
		})
	}
}
