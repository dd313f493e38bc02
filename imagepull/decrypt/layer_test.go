package decrypt

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/containerd/errdefs"
	"github.com/containers/ocicrypt/blockcipher"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/secret"
)

// broker answers with what it holds by path.
type broker map[string]secret.Bytes

func (b broker) Resource(_ context.Context, u resource.URI) (secret.Bytes, error) {
	v, ok := b[u.Path()]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	return v.Clone(), nil
}

// layer is an encrypted layer whose parts a test may change.
type layer struct {
	key     secret.Bytes
	cipher  []byte
	private blockcipher.PrivateLayerBlockCipherOptions
	public  blockcipher.PublicLayerBlockCipherOptions
	packet  Packet
}

func encrypted(t testing.TB, plain []byte) *layer {
	t.Helper()
	h, err := blockcipher.NewLayerBlockCipherHandler()
	if err != nil {
		t.Fatal(err)
	}
	r, finish, err := h.Encrypt(bytes.NewReader(plain), blockcipher.AES256CTR)
	if err != nil {
		t.Fatal(err)
	}
	l := &layer{key: make(secret.Bytes, 32), packet: Packet{KeyID: "kbs:///default/key/1", WrapType: GCM, IV: make([]byte, 12)}}
	rand.Read(l.key)
	if l.cipher, err = io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	opts, err := finish()
	if err != nil {
		t.Fatal(err)
	}
	l.private, l.public = opts.Private, opts.Public
	return l
}

func (l *layer) descriptor(t testing.TB) v1.Descriptor {
	t.Helper()
	private, err := json.Marshal(l.private)
	if err != nil {
		t.Fatal(err)
	}
	public, err := json.Marshal(l.public)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.packet.Seal(l.key, private); err != nil {
		t.Fatal(err)
	}
	text, err := l.packet.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return v1.Descriptor{Annotations: map[string]string{
		ProviderPrefix + "attestation-agent": text,
		PublicOptions:                        base64.StdEncoding.EncodeToString(public),
	}}
}

func TestReader(t *testing.T) {
	for _, size := range []int{0, 1, 147, 10239, 10240, 10241, 50_000, 1 << 20} {
		plain := make([]byte, size)
		rand.Read(plain)
		l := encrypted(t, plain)
		for name, shape := range map[string]func(io.Reader) io.Reader{
			"whole":   func(r io.Reader) io.Reader { return r },
			"halves":  iotest.HalfReader,
			"eof":     iotest.DataErrReader,
			"one":     func(r io.Reader) io.Reader { return io.LimitReader(iotest.OneByteReader(r), 1<<16) },
			"limited": func(r io.Reader) io.Reader { return io.LimitReader(r, 1<<30) },
		} {
			if name == "one" && size > 1<<16 {
				continue
			}
			k, err := Unwrap(t.Context(), broker{"default/key/1": l.key}, l.descriptor(t))
			if err != nil {
				t.Fatal(err)
			}
			r, err := k.Reader(shape(bytes.NewReader(l.cipher)))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes, %s: got %d bytes, %v", size, name, len(got), err)
			}
			for _, buf := range []int{7, 4096} {
				k2, _ := Unwrap(t.Context(), broker{"default/key/1": l.key}, l.descriptor(t))
				r, _ := k2.Reader(shape(bytes.NewReader(l.cipher)))
				var b bytes.Buffer
				_, err := io.CopyBuffer(struct{ io.Writer }{&b}, struct{ io.Reader }{r}, make([]byte, buf))
				if err != nil || !bytes.Equal(b.Bytes(), plain) {
					t.Errorf("%d bytes, %s, reads of %d: got %d bytes, %v", size, name, buf, b.Len(), err)
				}
			}
			k.Wipe()
			if !bytes.Equal(k.options.Private.SymmetricKey, make([]byte, 32)) {
				t.Error("key is not wiped")
			}
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	plain := []byte(strings.Repeat("layer", 10000))
	for name, change := range map[string]func(*layer){
		"changed byte": func(l *layer) { l.cipher[3] ^= 1 },
		"cut short":    func(l *layer) { l.cipher = l.cipher[:len(l.cipher)-1] },
		"longer":       func(l *layer) { l.cipher = append(l.cipher, 0) },
		"another mac":  func(l *layer) { l.public.Hmac[0] ^= 1 },
		"another key":  func(l *layer) { l.private.SymmetricKey[0] ^= 1 },
		"nothing left": func(l *layer) { l.cipher = nil },
	} {
		t.Run(name, func(t *testing.T) {
			l := encrypted(t, plain)
			change(l)
			k, err := Unwrap(t.Context(), broker{"default/key/1": l.key}, l.descriptor(t))
			if err != nil {
				t.Fatal(err)
			}
			r, err := k.Reader(bytes.NewReader(l.cipher))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(r); !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "HMAC is wrong") {
				t.Errorf("got %v", err)
			}
		})
	}
	l := encrypted(t, plain)
	k, err := Unwrap(t.Context(), broker{"default/key/1": l.key}, l.descriptor(t))
	if err != nil {
		t.Fatal(err)
	}
	r, _ := k.Reader(io.MultiReader(bytes.NewReader(l.cipher[:20000]), iotest.ErrReader(errdefs.ErrUnavailable)))
	if _, err := io.ReadAll(r); !errdefs.IsUnavailable(err) {
		t.Errorf("error of the source: %v", err)
	}
}
