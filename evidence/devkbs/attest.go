package devkbs

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/initdata"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// statement is the body of an attestation.
type statement struct {
	InitData *struct {
		Format string `json:"format"`
		Body   string `json:"body"`
	} `json:"init-data"`
	Runtime struct {
		Nonce string          `json:"nonce"`
		Key   json.RawMessage `json:"tee-pubkey"`
	} `json:"runtime-data"`
	Evidence struct {
		Primary    json.RawMessage `json:"primary_evidence"`
		Additional string          `json:"additional_evidence"`
	} `json:"tee-evidence"`
}

// auth answers a request with a nonce and a session.
func (s *Server) auth(w http.ResponseWriter, r *http.Request) (any, error) {
	var req struct {
		Version string          `json:"version"`
		TEE     evidence.Kind   `json:"tee"`
		Extra   json.RawMessage `json:"extra-params"`
	}
	if err := decode(r.Body, &req); err != nil {
		return nil, err
	}
	switch {
	case req.Version != version:
		return nil, refuseAttestation("KBS Client Protocol Version Mismatch: expect =" + version)
	case req.Extra == nil:
		return nil, refuseAttestation("extra-params is missing")
	case req.TEE == "":
		return nil, refuseAttestation("tee is missing")
	}
	n := s.open(req.TEE)
	n.setCookie(w)
	return map[string]string{"nonce": n.nonce, "extra-params": ""}, nil
}

// attest judges a statement and answers with a token.
func (s *Server) attest(w http.ResponseWriter, r *http.Request) (any, error) {
	n, ok := s.lookup(r)
	if !ok {
		return nil, refuseAttestation("session not found")
	}
	var st statement
	if err := decode(r.Body, &st); err != nil {
		return nil, err
	}
	if n.proof == nil {
		proven, err := s.judge(n, st)
		if err != nil {
			return nil, err
		}
		if n, ok = s.accept(n.id, proven); !ok {
			return nil, refuseAttestation("session not found")
		}
		s.options.Log.InfoContext(r.Context(), "accepted guest", "tee", n.tee)
	}
	n.setCookie(w)
	return map[string]string{"token": n.proof.token}, nil
}

// proof is the outcome of a handshake: whose key it is and what that guest is.
type proof struct {
	key       *guestKey
	statement *verify.Statement
	token     string
}

// judge verifies nonce, key, evidence of devices and platform, and initdata.
func (s *Server) judge(n session, st statement) (*proof, error) {
	if st.Runtime.Nonce != n.nonce {
		return nil, refuseAttestation("the nonce is not that of the session")
	}
	key, err := parseKey(st.Runtime.Key)
	if err != nil {
		return nil, refuseAttestation(err.Error())
	}
	devices, err := s.verifyDevices(st.Evidence.Additional, n.nonce, key)
	if err != nil {
		return nil, err
	}
	digest, err := bind(n.nonce, key, st.Evidence.Additional)
	if err != nil {
		return nil, err
	}
	doc, err := parseInitData(st)
	if err != nil {
		return nil, err
	}
	said, err := s.verify(n.tee, st.Evidence.Primary, digest, doc)
	if err != nil {
		return nil, err
	}
	token, err := s.sign(verdict{tee: n.tee, claims: claims(said), nonce: n.nonce, key: key,
		additional: st.Evidence.Additional, devices: devices, initData: doc})
	return &proof{key, said, token}, err
}

// bind is the hash that the platform's evidence has to carry: of what the guest
// sent, the key as understood here and not as sent.
func bind(nonce string, key *guestKey, additional string) ([]byte, error) {
	return hashed(map[string]any{"nonce": nonce, "tee-pubkey": key.members, "additional-evidence": additional})
}

// parseInitData returns nil when the guest sent none.
func parseInitData(st statement) (*initdata.Document, error) {
	if st.InitData == nil {
		return nil, nil
	}
	if st.InitData.Format != "toml" {
		return nil, refuseAttestation("init-data is not toml")
	}
	d, err := initdata.Parse([]byte(st.InitData.Body))
	if err != nil {
		return nil, refuseAttestation("init-data is malformed")
	}
	return d, nil
}

// decode reads one JSON value and nothing after it.
func decode(r io.Reader, v any) error {
	dec := json.NewDecoder(r)
	var big *http.MaxBytesError
	if err := dec.Decode(v); errors.As(err, &big) {
		return err
	} else if err != nil {
		return refuseAttestation("body is malformed")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return refuseAttestation("body has a tail")
	}
	return nil
}
