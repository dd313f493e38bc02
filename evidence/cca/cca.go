// Package cca reads the tokens by which Arm CCA attests realms (RMM
// specification section A7.2, draft-ffm-rats-cca-token): a map of two signed
// statements, one of the platform and one of the realm, in CBOR. It reads as
// much as a realm has to know of its own token, and verifies no signature. The
// reader of CBOR is its own: a library would be trusted with all of that
// format, and this is the small part of it that is used here.
package cca

// Tag and keys of a token.
const (
	tokenTag = 399 // a collection of CWTs
	signTag  = 18  // COSE_Sign1

	keyPlatform = 44234
	keyRealm    = 44241

	claimChallenge       = 10
	claimPersonalization = 44235
)

// Realm is what a token says of the realm.
type Realm struct {
	// Challenge is what the realm asked to have signed.
	Challenge [64]byte
	// Personalization is what the host gave when it made the realm.
	Personalization [64]byte
}

// Parse reads a token. A malformed one wraps errdefs.ErrInvalidArgument.
func Parse(token []byte) (Realm, error) {
	_, claims, err := payloads(token)
	if err != nil {
		return Realm{}, err
	}
	return parseRealm(claims)
}

// payloads are the claims of platform and realm.
func payloads(token []byte) (ofPlatform, ofRealm []byte, err error) {
	r := &reader{rest: token}
	var platform, realm []byte
	r.tag(tokenTag, "token")
	r.each("token", func(key uint64) bool {
		switch key {
		case keyPlatform:
			platform = r.bytes("platform token")
		case keyRealm:
			realm = r.bytes("realm token")
		default: // as Trustee's verifier, which knows of nothing else
			r.fail("unknown key %d", key)
		}
		return true
	})
	r.end("token")
	if r.err != nil {
		return nil, nil, r.err
	}
	if ofPlatform, err = payload(platform, "platform token"); err != nil {
		return nil, nil, err
	}
	ofRealm, err = payload(realm, "realm token")
	return ofPlatform, ofRealm, err
}

// payload returns what is signed: COSE_Sign1 is an array of a protected header,
// an open one, the payload and the signature.
func payload(signed []byte, name string) ([]byte, error) {
	r := &reader{rest: signed}
	r.tag(signTag, name)
	if n := r.expect(array, name); n != 4 {
		r.fail("%s has %d parts and not 4", name, n)
	}
	r.bytes(name + ": protected header")
	r.each(name+": header", func(uint64) bool { return false })
	p := r.bytes(name + ": payload")
	r.bytes(name + ": signature")
	r.end(name)
	return p, r.err
}

func parseRealm(claims []byte) (out Realm, err error) {
	r := &reader{rest: claims}
	found := 0
	r.each("realm token", func(key uint64) bool {
		switch key {
		case claimChallenge:
			out.Challenge = r.bytes64("challenge")
		case claimPersonalization:
			out.Personalization = r.bytes64("personalization value")
		default:
			return false
		}
		found++
		return true
	})
	r.end("realm token")
	if found != 2 {
		r.fail("challenge or personalization value is missing")
	}
	if r.err != nil {
		return Realm{}, r.err
	}
	return out, nil
}
