package decrypt

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containers/ocicrypt/blockcipher"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/secret"
)

// A packet of either version opens, in either wrap type.
func TestVersions(t *testing.T) {
	for name, change := range map[string]func(*Packet){
		"1": func(*Packet) {},
		"2": func(p *Packet) { p.Version, p.Provider = PacketVersion, "kbs" },
		"2 in full": func(p *Packet) {
			p.Version, p.Settings, p.Annotations = PacketVersion, json.RawMessage("{}"), json.RawMessage("null")
		},
		"counter":    func(p *Packet) { p.WrapType, p.IV = CTR, make([]byte, 16) },
		"counter, 2": func(p *Packet) { p.Version, p.WrapType, p.IV = PacketVersion, CTR, make([]byte, 16) },
	} {
		l := encrypted(t, []byte("layer"))
		change(&l.packet)
		k, err := Unwrap(t.Context(), broker{"default/key/1": l.key}, l.descriptor(t))
		if err != nil || k.KeyID() != "kbs:///default/key/1" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The format is other people's: this is a packet as their key provider writes
// it, of the private options {"symkey":"AAA…","cipheroptions":{"nonce":"AAA…"}}
// under a key of zeros.
func TestForeignPacket(t *testing.T) {
	options := `{"symkey":"` + base64.StdEncoding.EncodeToString(make([]byte, 32)) + `","digest":"sha256:0","cipheroptions":{"nonce":"` + base64.StdEncoding.EncodeToString(make([]byte, 16)) + `"}}`
	p := Packet{WrapType: GCM, IV: make([]byte, 12)}
	if err := p.Seal(make(secret.Bytes, 32), secret.Bytes(options)); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"kid":"kbs:///default/test-key/1","wrapped_data":%q,"iv":"AAAAAAAAAAAAAAAA","wrap_type":"A256GCM","unknown":1}`, base64.StdEncoding.EncodeToString(p.Wrapped))
	public := `{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"` + base64.StdEncoding.EncodeToString(make([]byte, 32)) + `","cipheroptions":{}}`
	d := v1.Descriptor{Annotations: map[string]string{
		ProviderPrefix + "anything": base64.StdEncoding.EncodeToString([]byte(text)),
		PublicOptions:               base64.StdEncoding.EncodeToString([]byte(public)),
	}}
	if _, err := Unwrap(t.Context(), broker{"default/test-key/1": make(secret.Bytes, 32)}, d); err != nil {
		t.Error(err)
	}
}

func TestParsePacketRefuses(t *testing.T) {
	const good = `{"kid":"kbs:///a/b/c","wrapped_data":"AAAA","iv":"AAAAAAAAAAAAAAAA","wrap_type":"A256GCM"}`
	if _, err := ParsePacket([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty": ``, "list": `[]`, "text behind": good + `{}`, "numbers": strings.Replace(good, `"AAAA"`, `[256]`, 1),
		"version": strings.Replace(good, `{`, `{"version":"0.2.0",`, 1), "provider": strings.Replace(good, `{`, `{"provider":"aliyun",`, 1),
		"wrap type": strings.Replace(good, "A256GCM", "A128GCM", 1), "no wrap type": strings.Replace(good, "wrap_type", "x", 1),
		"no data": strings.Replace(good, `"AAAA"`, `""`, 1), "long data": strings.Replace(good, "AAAA", strings.Repeat("AAAA", maxWrapped), 1),
		"short iv": strings.Replace(good, "AAAAAAAAAAAAAAAA", "AAAA", 1), "iv of the other": strings.Replace(good, "A256GCM", "A256CTR", 1),
		"long": good + strings.Repeat(" ", maxPacket),
	} {
		if _, err := ParsePacket([]byte(text)); !errdefs.IsInvalidArgument(err) && !errdefs.IsNotImplemented(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// down is a broker that cannot be reached.
type down struct{}

func (down) Resource(context.Context, resource.URI) (secret.Bytes, error) {
	return nil, fmt.Errorf("connect to the key broker: %w", errdefs.ErrUnavailable)
}

func TestUnwrapRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*layer)
		edit   func(v1.Descriptor)
		keys   Keys
		class  func(error) bool
		text   string
	}{
		"unknown key":      {keys: broker{}, class: errdefs.IsNotFound, text: "get key kbs:///default/key/1"},
		"broker is down":   {keys: down{}, class: errdefs.IsUnavailable, text: "get key kbs:///default/key/1: connect to the key broker"},
		"another key":      {keys: broker{"default/key/1": make(secret.Bytes, 32)}, class: errdefs.IsPermissionDenied, text: "wrapped with another key"},
		"short key":        {keys: broker{"default/key/1": make(secret.Bytes, 16)}, class: errdefs.IsInvalidArgument, text: "has 16 bytes, not 32"},
		"id of no form":    {change: func(l *layer) { l.packet.KeyID = "/default/key/1/2/3" }, class: errdefs.IsInvalidArgument, text: "key id"},
		"id elsewhere":     {change: func(l *layer) { l.packet.KeyID = "https://evil.example/key" }, class: errdefs.IsInvalidArgument, text: "key id"},
		"short layer key":  {change: func(l *layer) { l.private.SymmetricKey = l.private.SymmetricKey[:16] }, class: errdefs.IsInvalidArgument, text: "key has the wrong length"},
		"short nonce":      {change: func(l *layer) { l.private.CipherOptions["nonce"] = make([]byte, 8) }, class: errdefs.IsInvalidArgument, text: "nonce has the wrong length"},
		"no nonce":         {change: func(l *layer) { l.private.CipherOptions = nil }, class: errdefs.IsInvalidArgument, text: "nonce has the wrong length"},
		"public nonce":     {change: func(l *layer) { l.public.CipherOptions = map[string][]byte{"nonce": make([]byte, 16)} }, class: errdefs.IsInvalidArgument, text: "public nonce differs"},
		"no mac":           {change: func(l *layer) { l.public.Hmac = nil }, class: errdefs.IsInvalidArgument, text: "no HMAC"},
		"short mac":        {change: func(l *layer) { l.public.Hmac = l.public.Hmac[:31] }, class: errdefs.IsInvalidArgument, text: "no HMAC"},
		"cipher":           {change: func(l *layer) { l.public.CipherType = "NONE" }, class: errdefs.IsNotImplemented, text: "layer cipher"},
		"no packet":        {edit: func(d v1.Descriptor) { delete(d.Annotations, ProviderPrefix+"attestation-agent") }, class: errdefs.IsInvalidArgument, text: "has no annotation"},
		"no options":       {edit: func(d v1.Descriptor) { delete(d.Annotations, PublicOptions) }, class: errdefs.IsInvalidArgument, text: "missing or malformed"},
		"long options":     {edit: func(d v1.Descriptor) { d.Annotations[PublicOptions] = strings.Repeat("A", maxPacket+1) }, class: errdefs.IsInvalidArgument, text: "pubopts"},
		"not base64":       {edit: func(d v1.Descriptor) { d.Annotations[ProviderPrefix+"attestation-agent"] = "%" }, class: errdefs.IsInvalidArgument, text: "not base64"},
		"too many":         {edit: func(d v1.Descriptor) { d.Annotations[ProviderPrefix+"x"] = strings.Repeat("e30=,", 9) + "e30=" }, class: errdefs.IsInvalidArgument, text: "more than 8"},
		"counter, wrong":   {change: func(l *layer) { l.packet.WrapType, l.packet.IV = CTR, make([]byte, 16) }, keys: broker{"default/key/1": make(secret.Bytes, 32)}, class: errdefs.IsInvalidArgument, text: "opens no layer options"},
		"another provider": {change: func(l *layer) { l.packet.Provider = "aliyun" }, class: errdefs.IsNotImplemented, text: "key provider"},
	} {
		t.Run(name, func(t *testing.T) {
			l := encrypted(t, []byte("layer"))
			if c.change != nil {
				c.change(l)
			}
			d := l.descriptor(t)
			if c.edit != nil {
				c.edit(d)
			}
			keys := c.keys
			if keys == nil {
				keys = broker{"default/key/1": l.key}
			}
			_, err := Unwrap(t.Context(), keys, d)
			if !c.class(err) || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("%v has class %v", err, errdefs.Resolve(err))
			}
			for _, s := range []secret.Bytes{l.key, l.private.SymmetricKey} {
				if strings.Contains(err.Error(), base64.StdEncoding.EncodeToString(s)) {
					t.Errorf("error tells a key: %v", err)
				}
			}
		})
	}
}

// counting is a broker that counts.
type counting struct {
	broker
	n int
}

func (c *counting) Resource(ctx context.Context, u resource.URI) (secret.Bytes, error) {
	c.n++
	return c.broker.Resource(ctx, u)
}

// Several packets are tried until one opens, in an order that depends on
// nothing but their names.
func TestSeveralPackets(t *testing.T) {
	l := encrypted(t, []byte("layer"))
	d := l.descriptor(t)
	good := d.Annotations[ProviderPrefix+"attestation-agent"]
	d.Annotations[ProviderPrefix+"attestation-agent"] = "e30=," + good
	other := l.packet
	other.KeyID = "kbs:///default/key/other"
	text, err := other.Encode()
	if err != nil {
		t.Fatal(err)
	}
	d.Annotations[ProviderPrefix+"a-first"] = text
	keys := &counting{broker: broker{"default/key/1": l.key}}
	if k, err := Unwrap(t.Context(), keys, d); err != nil || k.KeyID() != "kbs:///default/key/1" || keys.n != 2 {
		t.Errorf("%d keys were asked for, %v", keys.n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	keys = &counting{broker: broker{}}
	if _, err := Unwrap(ctx, keys, d); err == nil || keys.n != 1 {
		t.Errorf("%d keys were asked for after the end, %v", keys.n, err)
	}
}

func TestMediaType(t *testing.T) {
	for in, want := range map[string]string{
		"application/vnd.oci.image.layer.v1.tar+gzip+encrypted":                  v1.MediaTypeImageLayerGzip,
		"application/vnd.oci.image.layer.v1.tar+zstd+encrypted":                  v1.MediaTypeImageLayerZstd,
		"application/vnd.oci.image.layer.v1.tar+encrypted":                       v1.MediaTypeImageLayer,
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip+encrypted": v1.MediaTypeImageLayerGzip,
	} {
		if got, ok := MediaType(in); got != want || !ok {
			t.Errorf("%s: %s", in, got)
		}
	}
	for _, in := range []string{v1.MediaTypeImageLayer, "", "x+encrypted", "application/vnd.docker.image.rootfs.diff.tar.gzip+encrypted"} {
		if got, ok := MediaType(in); got != in || ok {
			t.Errorf("%s: %s", in, got)
		}
	}
}

// FuzzPacket feeds packets.
func FuzzPacket(f *testing.F) {
	f.Add([]byte(`{"kid":"kbs:///a/b/c","wrapped_data":"AAAA","iv":"AAAAAAAAAAAAAAAA","wrap_type":"A256GCM"}`))
	f.Add([]byte(`{"version":"0.1.0","kid":"kbs:///a/b/c","wrapped_data":"AAAA","iv":"AAAAAAAAAAAAAAAAAAAAAA==","wrap_type":"A256CTR","provider":"kbs","provider_settings":{},"annotations":{}}`))
	keys := broker{"a/b/c": make(secret.Bytes, keySize)}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := ParsePacket(raw)
		if err != nil {
			return
		}
		if _, err := p.unwrap(t.Context(), keys); err == nil && p.WrapType == GCM && len(p.Wrapped) < 16 {
			t.Error("opened what has no tag")
		}
	})
}

// FuzzUnwrap feeds annotations, with options that an owner of the key may have
// wrapped in any form. Whatever opens must be fit for the cipher, which would
// stop the program over a nonce of another length.
func FuzzUnwrap(f *testing.F) {
	l := encrypted(f, []byte("layer"))
	private, _ := json.Marshal(l.private)
	public, _ := json.Marshal(l.public)
	f.Add(private, public, "e30=,x")
	f.Add([]byte(`{"symkey":"","cipheroptions":{"nonce":""}}`), []byte(`{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"","cipheroptions":{"nonce":"AA=="}}`), "")
	f.Fuzz(func(t *testing.T, private, public []byte, more string) {
		p := Packet{KeyID: "kbs:///a/b/c", WrapType: GCM, IV: make([]byte, 12)}
		if err := p.Seal(make(secret.Bytes, keySize), private); err != nil {
			t.Fatal(err)
		}
		text, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		d := v1.Descriptor{Annotations: map[string]string{
			ProviderPrefix + "b": text, ProviderPrefix + "a": more, PublicOptions: base64.StdEncoding.EncodeToString(public),
		}}
		if more == "" {
			delete(d.Annotations, ProviderPrefix+"a")
		}
		k, err := Unwrap(t.Context(), broker{"a/b/c": make(secret.Bytes, keySize)}, d)
		if err != nil {
			return
		}
		r, err := k.Reader(strings.NewReader("ciphertext"))
		if err != nil || k.options.Public.CipherType != blockcipher.AES256CTR {
			t.Fatalf("opened, yet %v", err)
		}
		if _, err := r.Read(make([]byte, 100)); err == nil || !errors.Is(err, errdefs.ErrDataLoss) {
			t.Errorf("read %v", err)
		}
	})
}
