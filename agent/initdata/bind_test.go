package initdata

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/initdata"
)

// register is an anchor with this content.
type register struct {
	value []byte
	err   error
}

func (r register) LaunchAnchor(context.Context) ([]byte, error) { return r.value, r.err }

// silent is an anchor whose platform never answers.
type silent struct{}

func (silent) LaunchAnchor(ctx context.Context) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestSilentAnchorEndsTheBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := Load(t.Context(), t.TempDir(), Binding{Anchor: silent{}})
		if !errors.Is(err, context.DeadlineExceeded) || !errdefs.IsFailedPrecondition(err) {
			t.Errorf("Load = %v, %v", d, err)
		}
	})
}

// launched is the register of a platform after a launch with the document's
// digest, the way a host fills it.
func launched(t *testing.T, algorithm, text string, size int) register {
	t.Helper()
	sum, err := initdata.Digest(algorithm, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return register{value: initdata.Pad(sum, size)}
}

const (
	sha384Document = "version = \"0.1.0\"\nalgorithm = \"sha384\"\n[data]\n"
	sha512Document = "version = \"0.1.0\"\nalgorithm = \"sha512\"\n[data]\n"
	snp, tdx, cca  = 32, 48, 64 // sizes of HOST_DATA, MRCONFIGID and the realm personalization value
)

func TestBound(t *testing.T) {
	for name, c := range map[string]struct {
		text, algorithm string
		size            int
	}{
		"sha256 on SNP":         {document, "sha256", snp},
		"sha384 on SNP, cut":    {sha384Document, "sha384", snp},
		"sha512 on SNP, cut":    {sha512Document, "sha512", snp},
		"sha256 on TDX, filled": {document, "sha256", tdx},
		"sha384 on TDX":         {sha384Document, "sha384", tdx},
		"sha512 on TDX, cut":    {sha512Document, "sha512", tdx},
		"sha256 on CCA, filled": {document, "sha256", cca},
		"sha384 on CCA, filled": {sha384Document, "sha384", cca},
		"sha512 on CCA":         {sha512Document, "sha512", cca},
	} {
		t.Run(name, func(t *testing.T) {
			anchor := launched(t, c.algorithm, c.text, c.size)
			d, err := Binding{Anchor: anchor}.admit(t.Context(), []byte(c.text), "/dev/vda")
			if err != nil || d == nil || string(d.Raw) != c.text {
				t.Fatalf("admit = %v, %v", d, err)
			}
			// Neither another bit of the register nor of the text is accepted,
			// and the image's consent to unbound documents changes nothing.
			for bit := range 8 * c.size {
				other := bytes.Clone(anchor.value)
				other[bit/8] ^= 1 << (bit % 8)
				b := Binding{Anchor: register{value: other}, AllowUnbound: true}
				if d, err := b.admit(t.Context(), []byte(c.text), "/dev/vda"); d != nil || !errdefs.IsFailedPrecondition(err) {
					t.Fatalf("bit %d of the register: %v, %v", bit, d, err)
				}
			}
			other := append([]byte(c.text), '\n')
			if d, err := (Binding{Anchor: anchor}).admit(t.Context(), other, "/dev/vda"); d != nil || !errdefs.IsFailedPrecondition(err) {
				t.Errorf("one more byte: %v, %v", d, err)
			}
		})
	}
}

func TestUnboundAndRefused(t *testing.T) {
	for name, c := range map[string]struct {
		binding Binding
		text    string // "" is no document
		fault   string // "" is none
		found   bool
	}{
		"no anchor, none":             {Binding{}, "", "", false},
		"no anchor, document":         {Binding{}, document, "allow_unbound_initdata", false},
		"no anchor, allowed":          {Binding{AllowUnbound: true}, document, "", true},
		"zero, none":                  {Binding{Anchor: register{value: make([]byte, 48)}}, "", "", false},
		"zero, document":              {Binding{Anchor: register{value: make([]byte, 48)}}, document, "launched without initdata", false},
		"zero, document, allowed":     {Binding{Anchor: register{value: make([]byte, 48)}, AllowUnbound: true}, document, "launched without initdata", false},
		"set, none":                   {Binding{Anchor: launched(t, "sha256", document, snp)}, "", "no disk carries initdata", false},
		"set, none, allowed":          {Binding{Anchor: launched(t, "sha256", document, snp), AllowUnbound: true}, "", "no disk carries initdata", false},
		"other document":              {Binding{Anchor: launched(t, "sha256", sha384Document, snp)}, document, "not its own", false},
		"algorithm of another digest": {Binding{Anchor: launched(t, "sha512", document, tdx)}, document, "sha512 digest", false},
		"not parsed before compared":  {Binding{Anchor: launched(t, "sha256", document, snp)}, "][", "not its own", false},
		"malformed":                   {Binding{Anchor: launched(t, "sha256", "][", snp)}, "][", "malformed", false},
		"unreadable":                  {Binding{Anchor: register{err: errors.New("device is gone")}, AllowUnbound: true}, document, "device is gone", false},
		"unreadable, none":            {Binding{Anchor: register{err: errors.New("device is gone")}, AllowUnbound: true}, "", "device is gone", false},
		"empty register":              {Binding{Anchor: register{}, AllowUnbound: true}, document, "empty", false},
	} {
		t.Run(name, func(t *testing.T) {
			device := ""
			if c.text != "" {
				device = "/dev/vda"
			}
			d, err := c.binding.admit(t.Context(), []byte(c.text), device)
			if c.fault == "" {
				if err != nil || (d != nil) != c.found {
					t.Errorf("admit = %v, %v", d, err)
				}
				return
			}
			if d != nil || err == nil || !strings.Contains(err.Error(), c.fault) || strings.Contains(err.Error(), "\n") {
				t.Errorf("admit = %v, %v, want one line with %q", d, err, c.fault)
			}
			if name != "malformed" && !errdefs.IsFailedPrecondition(err) {
				t.Errorf("%v has another class", err)
			}
		})
	}
}
