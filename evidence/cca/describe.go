package cca

// Keys of claims that only describe: the platform's, then the realm's.
const (
	claimLifecycle  = 2395
	claimComponents = 2399

	claimInitial = 44238
)

// Keys within a software component.
const (
	componentType    = 1
	componentVersion = 4
)

// maxComponents is far more than a platform has.
const maxComponents = 64

// Description is what a token says for people to read, beside what binds it.
type Description struct {
	Realm
	Initial    []byte // measurement of the realm as it was launched; nil where the token has none
	Lifecycle  uint16 // of the platform
	Stated     bool   // whether the token has a lifecycle
	Components []Component
}

// Component is software below the realm. Its texts are empty where the token
// has none.
type Component struct{ Type, Version string }

// States are the upper byte of Description.Lifecycle; the lower one is the
// implementation's own (draft-ffm-rats-cca-token, Platform Lifecycle).
const (
	Assembly       = 0x10
	Provisioning   = 0x20
	Secured        = 0x30
	NonCCADebug    = 0x40 // all but the software of CCA can be debugged
	RecoverDebug   = 0x50 // the software of CCA, too
	Decommissioned = 0x60
)

// Describe reads a token as Parse does, and the claims that describe. A
// malformed one wraps errdefs.ErrInvalidArgument.
func Describe(token []byte) (Description, error) {
	platform, claims, err := payloads(token)
	if err != nil {
		return Description{}, err
	}
	var d Description
	if d.Realm, err = parseRealm(claims); err != nil {
		return Description{}, err
	}
	r := &reader{rest: claims}
	r.each("realm token", func(key uint64) bool {
		if key == claimInitial {
			d.Initial = r.bytes("initial measurement")
		}
		return key == claimInitial
	})
	if r.err != nil {
		return Description{}, r.err
	}
	return d, d.platform(platform)
}

func (d *Description) platform(claims []byte) error {
	r := &reader{rest: claims}
	r.each("platform token", func(key uint64) bool {
		switch key {
		case claimLifecycle:
			n := r.expect(unsigned, "lifecycle")
			if n > 0xffff {
				r.fail("lifecycle %d", n)
			}
			d.Lifecycle, d.Stated = uint16(n), true
		case claimComponents:
			n := r.expect(array, "software components")
			if n > maxComponents {
				r.fail("%d software components", n)
			}
			for range r.count(min(n, maxComponents), 1) {
				d.Components = append(d.Components, r.component())
			}
		default:
			return false
		}
		return true
	})
	r.end("platform token")
	return r.err
}

func (r *reader) component() (c Component) {
	r.each("software component", func(key uint64) bool {
		switch key {
		case componentType:
			c.Type = string(r.take(r.expect(textString, "type of a component")))
		case componentVersion:
			c.Version = string(r.take(r.expect(textString, "version of a component")))
		default:
			return false
		}
		return true
	})
	return c
}
