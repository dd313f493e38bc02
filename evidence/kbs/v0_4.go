package kbs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/coffer-cc/coffer/evidence"
)

// protocolVersion is matched exactly by the broker; there is no negotiation.
const protocolVersion = "0.4.0"

// Bounds of the challenge: brokers send 44 characters, and to Secure Execution
// a request that grows with the number of machines it is for.
const (
	maxNonce     = 4096
	maxSERequest = 64 << 10
)

// authRequest opens a handshake.
type authRequest struct {
	Version string        `json:"version"`
	TEE     evidence.Kind `json:"tee"`
	Extra   extraParams   `json:"extra-params"`
}

type extraParams struct {
	Hashes []string `json:"supported-hash-algorithms"`
}

// challenge answers it. ExtraParams is an empty text for most platforms and an
// object for some.
type challenge struct {
	Nonce       string          `json:"nonce"`
	ExtraParams json.RawMessage `json:"extra-params"`

	unselected string // the algorithm where the broker selects none; "" is sha384
}

// runtimeData is what the evidence is bound to.
type runtimeData struct {
	Nonce string    `json:"nonce"`
	Key   publicKey `json:"tee-pubkey"`
}

// boundData is runtimeData in the form that is hashed: members in the order of
// their names. The evidence of devices is part of it as the text that is sent,
// which is empty without any.
type boundData struct {
	AdditionalEvidence string    `json:"additional-evidence"`
	Nonce              string    `json:"nonce"`
	Key                publicKey `json:"tee-pubkey"`
}

type attestRequest struct {
	InitData *initData   `json:"init-data"`
	Runtime  runtimeData `json:"runtime-data"`
	Evidence struct {
		Primary    json.RawMessage `json:"primary_evidence"`
		Additional string          `json:"additional_evidence"`
	} `json:"tee-evidence"`
}

type initData struct {
	Format string `json:"format"`
	Body   string `json:"body"`
}

// handshake makes a session with a fresh key. A session is never reused for
// another key: the broker would answer with the token of the first.
func (c *Client) handshake(ctx context.Context) (*session, error) {
	kind, epoch, start := c.config.Collector.Kind(), c.epoch(), time.Now()
	auth, err := c.post(ctx, "/auth", "", authRequest{
		Version: protocolVersion,
		TEE:     kind,
		Extra:   extraParams{Hashes: []string{"sha256", "sha384", "sha512"}},
	})
	if err != nil {
		return nil, fmt.Errorf("attest: open session: %w", noSession(err))
	}
	c.observe(PhaseChallenge, start)
	ch, err := parseChallenge(auth.body, kind)
	if err != nil {
		return nil, err
	}
	if auth.cookie == "" {
		return nil, malformed(evidence.TransportReply, "challenge without a session")
	}
	key, err := c.newKey()
	if err != nil {
		return nil, err
	}
	c.waitsFor(evidence.DriverTimeout)
	start = time.Now()
	req, err := c.evidence(ctx, ch, key.public)
	if err != nil {
		return nil, err
	}
	c.observe(PhaseEvidence, start)
	c.waitsFor(evidence.TransportTimeout)
	start = time.Now()
	reply, err := c.post(ctx, "/attest", auth.cookie, req)
	if err != nil {
		return nil, fmt.Errorf("attest: %w", err)
	}
	token, life, err := judgeToken(reply.body, kind)
	if err != nil {
		return nil, err
	}
	c.observe(PhaseVerdict, start)
	if !c.passport() { // the session ends with its cookie, which a passport outlives
		life = shortest(life, auth.lifetime, reply.lifetime)
	}
	return &session{key: key, cookie: auth.cookie, token: token, epoch: epoch, renewAt: renewal(life)}, nil
}

// noSession tells a refusal before there is any evidence from a verdict over
// it: brokers have one word for both.
func noSession(err error) error {
	if errors.Is(err, ErrAttestation) {
		return evidence.VerdictProtocol.Wrap(ErrAttestation)
	}
	return err
}

// evidence collects a statement bound to nonce and key and wraps it up.
func (c *Client) evidence(ctx context.Context, ch challenge, key publicKey) (*attestRequest, error) {
	runtime := runtimeData{Nonce: ch.Nonce, Key: key}
	devices, err := c.deviceEvidence(ctx, ch, runtime)
	if err != nil {
		return nil, err
	}
	digest, err := bind(ch, boundData{AdditionalEvidence: devices, Nonce: ch.Nonce, Key: key})
	if err != nil {
		return nil, err
	}
	rd, err := evidence.NewReportData(digest)
	if err != nil {
		return nil, err
	}
	e, err := c.collect(ctx, ch.Nonce, rd)
	if err != nil {
		return nil, fmt.Errorf("attest: %w", err)
	}
	req := &attestRequest{Runtime: runtime}
	req.Evidence.Primary, req.Evidence.Additional = e.Data, devices
	if c.config.InitData != nil {
		req.InitData = &initData{Format: "toml", Body: string(c.config.InitData)}
	}
	return req, nil
}

// collect asks the platform, which may have to answer the challenge itself, and
// adds what the guest has to say of its initdata.
func (c *Client) collect(ctx context.Context, challenge string, rd evidence.ReportData) (evidence.Evidence, error) {
	collect := c.config.Collector.Collect
	if answers, ok := c.config.Collector.(evidence.Challenged); ok {
		collect = func(ctx context.Context, rd evidence.ReportData) (evidence.Evidence, error) {
			return answers.CollectFor(ctx, challenge, rd)
		}
	}
	e, err := collect(ctx, rd)
	if err != nil || !c.config.Unbound {
		return e, err
	}
	return e.Unbound()
}

// post sends v as JSON.
func (c *Client) post(ctx context.Context, path, cookie string, v any) (answer, error) {
	body, err := canonical(v)
	if err != nil {
		return answer{}, fmt.Errorf("encode request: %w", err)
	}
	return c.verifier.do(ctx, request{method: http.MethodPost, path: path, cookie: cookie, body: body, limit: maxReply})
}

// parseChallenge checks the nonce, an opaque text that is hashed and echoed
// exactly as received. Plain characters only, so that there is one JSON
// spelling of it.
func parseChallenge(body []byte, kind evidence.Kind) (challenge, error) {
	var ch challenge
	limit := maxNonce
	if kind == evidence.SE {
		limit = maxSERequest
		ch.unselected = "sha512" // Trustee takes it whether it says so or not
	}
	if err := json.Unmarshal(body, &ch); err != nil {
		return ch, malformed(evidence.TransportReply, "challenge")
	}
	if ch.Nonce == "" || len(ch.Nonce) > limit || !plain(ch.Nonce) {
		return ch, malformed(evidence.TransportReply, "nonce")
	}
	return ch, nil
}

// plain tells whether there is but one canonical JSON spelling of a text.
func plain(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// bind hashes v with the algorithm that the challenge selects, or else with the
// platform's own.
func bind(ch challenge, v any) ([]byte, error) {
	text, err := canonical(v)
	if err != nil {
		return nil, fmt.Errorf("encode runtime data: %w", err)
	}
	var extra struct {
		Selected *string `json:"selected-hash-algorithm"`
	}
	if bytes.HasPrefix(bytes.TrimSpace(ch.ExtraParams), []byte("{")) {
		if err := json.Unmarshal(ch.ExtraParams, &extra); err != nil {
			return nil, malformed(evidence.TransportReply, "extra parameters")
		}
	}
	name := cmp.Or(ch.unselected, "sha384")
	if extra.Selected != nil {
		name = strings.ToLower(*extra.Selected)
	}
	switch name {
	case "sha256":
		sum := sha256.Sum256(text)
		return sum[:], nil
	case "sha384":
		sum := sha512.Sum384(text)
		return sum[:], nil
	case "sha512":
		sum := sha512.Sum512(text)
		return sum[:], nil
	}
	if name == "sm3" { // the one that other guests know
		return nil, malformed(evidence.TransportReply, "hash algorithm sm3, which this guest does not know")
	}
	return nil, malformed(evidence.TransportReply, "hash algorithm")
}

// canonical encodes v as RFC 8785 wants it, provided that texts are plain, and
// that v is a map or a struct with members in the order of their names.
func canonical(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}
