package kbs

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strings"
	"time"

	"github.com/coffer-cc/coffer/evidence"
)

// devIssuer is who signs the tokens of the development broker.
const devIssuer = "coffer-devkbs"

// judgeToken reads the reply to an attestation. The guest knows no key to
// verify a token with, and does not need to: the token is for the broker. What
// it says about itself is used in two ways only, neither of which a forged
// token could turn to advantage. A development broker is refused by a guest on
// a real platform, and the lifetime is a hint for when to attest again. It is
// the distance of two times of the issuer; 0 is unknown.
func judgeToken(body []byte, kind evidence.Kind) (token string, lifetime time.Duration, err error) {
	var reply struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return "", 0, malformed(evidence.TransportReply, "token")
	}
	parts := strings.Split(reply.Token, ".")
	if len(parts) != 3 {
		return "", 0, malformed(evidence.TransportReply, "token")
	}
	var payload []byte
	for i, part := range parts { // a token may become a header of a request
		b, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil || len(b) == 0 || strings.ContainsAny(part, "\r\n") {
			return "", 0, malformed(evidence.TransportReply, "token")
		}
		if i == 1 {
			payload = b
		}
	}
	var claims struct {
		Issuer string  `json:"iss"`
		Issued float64 `json:"iat"`
		Expiry float64 `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return "", 0, malformed(evidence.TransportReply, "token")
	}
	if claims.Issuer == devIssuer && kind != evidence.Sample {
		return "", 0, evidence.VerdictIssuer.Wrap(ErrIssuer)
	}
	if s := claims.Expiry - claims.Issued; claims.Issued > 0 && s > 0 && s < math.MaxInt32 {
		lifetime = time.Duration(s) * time.Second
	}
	return reply.Token, lifetime, nil
}
