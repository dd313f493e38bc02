package evidencetest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/binary"
	"encoding/json"
	"errors"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ultravisor is the firmware of IBM Z below a guest, and the verifier of its
// owner: the two share the host key of the machine. Set the fields before a
// request. It is not safe for concurrent use.
type Ultravisor struct {
	Additional []byte  // what it adds: the hashes of two host keys unless set
	RC         *uint16 // its return code in place of success
	Err        error   // what the device answers instead
	Claim      uint32  // the size of additional data that the device claims, if not 0
	// Before sees the structure of a request as it stands in memory.
	Before func(memory []byte)

	Asked int // requests that reached the firmware

	t       testing.TB
	host    cipher.AEAD // the machine's key
	own     *rsa.PrivateKey
	cuid    [16]byte
	tags    [208]byte // of the image's header: three digests and its tag
	measure [64]byte  // key of the request under way
}

// NewUltravisor is a machine with a fresh host key.
func NewUltravisor(t testing.TB) *Ultravisor {
	t.Helper()
	u := &Ultravisor{t: t, Additional: bytes.Repeat([]byte{0x5e}, 64)}
	var key [32]byte
	for _, b := range [][]byte{key[:], u.cuid[:], u.tags[:], u.measure[:]} {
		rand.Read(b)
	}
	block, err := aes.NewCipher(key[:])
	if err == nil {
		u.host, err = cipher.NewGCMWithRandomNonce(block)
	}
	if err == nil {
		u.own, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// Challenge makes a request as Trustee does, and the check of what answers it,
// which needs nothing but the answer: the verifier's secrets are in there,
// encrypted for itself.
func (u *Ultravisor) Challenge() (text string, verify func(answer []byte, reportData []byte) error) {
	var nonce [16]byte
	rand.Read(nonce[:])
	request := map[string]any{
		"request_blob":     u.host.Seal(nil, nil, append(u.measure[:], nonce[:]...), nil),
		"measurement_size": sha512.Size, "additional_size": 64, "image_hdr_tags": u.tags[:],
	}
	for name, secret := range map[string][]byte{"encr_measurement_key": u.measure[:], "encr_request_nonce": nonce[:]} {
		sealed, err := rsa.EncryptPKCS1v15(rand.Reader, &u.own.PublicKey, secret)
		if err != nil {
			u.t.Fatal(err)
		}
		request[name] = sealed
	}
	b, err := json.Marshal(request)
	if err != nil {
		u.t.Fatal(err)
	}
	return string(b), u.verify
}

func (u *Ultravisor) verify(answer, reportData []byte) error {
	var a struct {
		Measurement []byte `json:"measurement"`
		Additional  []byte `json:"additional_data"`
		UserData    []byte `json:"user_data"`
		CUID        []byte `json:"cuid"`
		Key         []byte `json:"encr_measurement_key"`
		Nonce       []byte `json:"encr_request_nonce"`
		Tags        []byte `json:"image_hdr_tags"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return err
	}
	key, kerr := rsa.DecryptPKCS1v15(nil, u.own, a.Key)
	nonce, nerr := rsa.DecryptPKCS1v15(nil, u.own, a.Nonce)
	if err := errors.Join(kerr, nerr); err != nil {
		return err
	}
	if len(a.UserData) < 64 || !bytes.Equal(a.UserData[:64], reportData) {
		return errors.New("user data are not the report data")
	}
	if !hmac.Equal(a.Measurement, SEMeasurement(key, a.Tags, a.CUID, a.UserData, nonce, a.Additional)) {
		return errors.New("the measurement is another one")
	}
	return nil
}

// SEMeasurement is the code over what the ultravisor measures.
func SEMeasurement(key, tags, cuid, user, nonce, additional []byte) []byte {
	sizes := binary.BigEndian.AppendUint16(nil, uint16(len(user)))
	sizes = binary.BigEndian.AppendUint32(append(sizes, 0, 0), uint32(len(additional)))
	mac := hmac.New(sha512.New, key)
	for _, part := range [][]byte{tags, cuid, sizes, user, nonce, additional} {
		mac.Write(part)
	}
	return mac.Sum(nil)
}

// Ioctl answers as /dev/uv does, by the offsets of the kernel's header.
func (u *Ultravisor) Ioctl(_, command uintptr, arg unsafe.Pointer) error {
	cb := unsafe.Slice((*byte)(arg), 0x40)
	native := binary.NativeEndian
	if command != 0xc0407501 || native.Uint32(cb) != 0 || native.Uint32(cb[0x10:]) != 0x138 || !zeros(cb[0x14:]) {
		return unix.EINVAL
	}
	if u.Err != nil {
		return u.Err
	}
	argument := *(*unsafe.Pointer)(unsafe.Add(arg, 8))
	a := unsafe.Slice((*byte)(argument), 0x138)
	if u.Before != nil {
		u.Before(a)
	}
	u.Asked++
	at := func(pointer, size int) []byte {
		return unsafe.Slice(*(**byte)(unsafe.Add(argument, pointer)), native.Uint32(a[size:]))
	}
	rc := u.answer(at(0x00, 0x128), at(0x08, 0x12c), at(0x10, 0x130), a)
	if u.RC != nil {
		rc = *u.RC
	}
	native.PutUint16(cb[4:], rc)
	return nil
}

// answer is the ultravisor itself, which returns a code.
func (u *Ultravisor) answer(blob, measurement, additional, a []byte) uint16 {
	secret, err := u.host.Open(nil, nil, blob, nil)
	switch {
	case err != nil || len(secret) != 80:
		return 0x010c
	case len(measurement) < sha512.Size:
		return 0x010d
	case len(additional) < len(u.Additional):
		return 0x010e
	}
	user := a[0x18 : 0x18+binary.NativeEndian.Uint16(a[0x134:])]
	copy(additional, u.Additional)
	copy(a[0x118:], u.cuid[:])
	copy(measurement, SEMeasurement(secret[:64], u.tags[:], u.cuid[:], user, secret[64:], u.Additional))
	size := uint32(len(u.Additional))
	if u.Claim != 0 {
		size = u.Claim
	}
	binary.NativeEndian.PutUint32(a[0x130:], size)
	return 1
}

func zeros(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
