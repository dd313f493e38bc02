package initdata

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// pcr extends as a TPM does, unless it fails or loses what it is told.
type pcr struct {
	value      [32]byte
	binds      bool
	read       error // of every reading
	readAfter  error // of those after an extension
	fail       error // of an extension
	loses      bool
	twice      bool
	extensions int
}

func (p *pcr) AnchorBinds() bool { return p.binds }

func (p *pcr) ReadAnchor(context.Context) ([32]byte, error) {
	if p.extensions > 0 && p.readAfter != nil {
		return [32]byte{}, p.readAfter
	}
	return p.value, p.read
}

func (p *pcr) ExtendAnchor(_ context.Context, digest [32]byte) error {
	p.extensions++
	if p.fail != nil {
		return p.fail
	}
	times := 1
	if p.loses {
		times = 0
	} else if p.twice {
		times = 2
	}
	for range times {
		p.value = sha256.Sum256(append(p.value[:], digest[:]...))
	}
	return nil
}

func extended(text string) [32]byte {
	digest := sha256.Sum256([]byte(text))
	return sha256.Sum256(append(make([]byte, 32), digest[:]...))
}

func TestExtend(t *testing.T) {
	gone := errors.New("device is gone")
	for name, c := range map[string]struct {
		pcr        pcr
		allow      bool
		text       string // "" is no document
		fault      string // "" is none
		extensions int
	}{
		"none":                              {pcr{binds: true}, false, "", "", 0},
		"none, host's TPM":                  {pcr{}, false, "", "", 0},
		"document":                          {pcr{binds: true}, false, document, "", 1},
		"document, host's TPM":              {pcr{}, false, document, "allow_unbound_initdata", 0},
		"document, host's TPM, allowed":     {pcr{}, true, document, "", 1},
		"not zero, none":                    {pcr{binds: true, value: [32]byte{1}}, false, "", "PCR 8 is 0100", 0},
		"not zero, none, host's TPM":        {pcr{value: [32]byte{31: 1}}, true, "", "not zero as after a reset", 0},
		"not zero, document":                {pcr{binds: true, value: [32]byte{1}}, true, document, "not zero as after a reset", 0},
		"extended with it before":           {pcr{binds: true, value: extended(document)}, true, document, "not zero as after a reset", 0},
		"other algorithm":                   {pcr{binds: true}, false, sha384Document, "names sha384", 1},
		"malformed, measured all the same":  {pcr{binds: true}, false, "][", "malformed", 1},
		"unreadable":                        {pcr{binds: true, read: gone}, true, document, "device is gone", 0},
		"unreadable, none":                  {pcr{binds: true, read: gone}, true, "", "device is gone", 0},
		"cannot be extended":                {pcr{binds: true, fail: gone}, true, document, "device is gone", 1},
		"unreadable after the extension":    {pcr{binds: true, readAfter: gone}, true, document, "device is gone", 1},
		"the extension is lost":             {pcr{binds: true, loses: true}, true, document, "after its extension", 1},
		"somebody extends at the same time": {pcr{binds: true, twice: true}, true, document, "after its extension", 1},
	} {
		t.Run(name, func(t *testing.T) {
			device := ""
			if c.text != "" {
				device = "/dev/vda"
			}
			b := Binding{Extend: &c.pcr, AllowUnbound: c.allow}
			d, err := b.admit(t.Context(), []byte(c.text), device)
			if c.pcr.extensions != c.extensions {
				t.Errorf("extended %d times, want %d", c.pcr.extensions, c.extensions)
			}
			if b.Bound() != c.pcr.binds {
				t.Errorf("Bound = %v", b.Bound())
			}
			if c.fault == "" {
				if err != nil || (d != nil) != (c.text != "") {
					t.Errorf("admit = %v, %v", d, err)
				}
				if d != nil && c.pcr.value != extended(document) || d == nil && c.pcr.value != [32]byte{} {
					t.Errorf("PCR 8 is %x", c.pcr.value)
				}
				return
			}
			if d != nil || err == nil || !strings.Contains(err.Error(), c.fault) || strings.Contains(err.Error(), "\n") {
				t.Errorf("admit = %v, %v, want one line with %q", d, err, c.fault)
			}
			if c.text != "][" && !errdefs.IsFailedPrecondition(err) {
				t.Errorf("%v has another class", err)
			}
		})
	}
}

// Whatever PCR 8 holds at boot but zeros ends it.
func TestExtendOnlyFromZero(t *testing.T) {
	for bit := range 256 {
		p := &pcr{binds: true}
		p.value[bit/8] = 1 << (bit % 8)
		if d, err := (Binding{Extend: p}).admit(t.Context(), []byte(document), "/dev/vda"); d != nil || !errdefs.IsFailedPrecondition(err) || p.extensions != 0 {
			t.Fatalf("bit %d: %v, %v", bit, d, err)
		}
	}
}

// TestBooted looks at a guest that runs: it finds the document that the boot has
// taken, and extends nothing.
func TestBooted(t *testing.T) {
	const text = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n"
	for name, c := range map[string]struct {
		pcr    [32]byte
		device string
		fault  string
	}{
		"taken":          {extended(text), "/dev/vda", ""},
		"none":           {[32]byte{}, "", ""},
		"not taken":      {[32]byte{}, "/dev/vda", "PCR 8 is 0000"},
		"another":        {extended("other"), "/dev/vda", "PCR 8 is"},
		"gone meanwhile": {extended(text), "", "PCR 8 is"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &pcr{value: c.pcr, binds: true}
			d, err := Binding{Extend: p, Booted: true}.admit(t.Context(), []byte(text), c.device)
			if c.fault == "" && (err != nil || (d == nil) != (c.device == "")) {
				t.Errorf("%v, %v", d, err)
			}
			if c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
				t.Errorf("%v, want %q", err, c.fault)
			}
			if p.extensions != 0 || p.value != c.pcr {
				t.Error("the register was extended")
			}
		})
	}
}
