package tee

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/cca"
)

func decodeCCA(data []byte) ([]Field, error) {
	var e struct {
		Token []uint16 `json:"token"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, undecodable(evidence.CCA, notJSON)
	}
	token := make([]byte, len(e.Token))
	for i, n := range e.Token {
		if n > 0xff {
			return nil, undecodable(evidence.CCA, "token is not of bytes")
		}
		token[i] = byte(n)
	}
	d, err := cca.Describe(token)
	if err != nil {
		return nil, fmt.Errorf("%s evidence: %w", evidence.CCA, err)
	}
	measurement := unknown("the token has no initial measurement")
	if d.Initial != nil {
		measurement = hex.EncodeToString(d.Initial)
	}
	state, debug := lifecycle(d)
	return []Field{
		{"tee", string(evidence.CCA)},
		{"report_data", hex.EncodeToString(d.Challenge[:])},
		{"measurement", measurement},
		{"initdata", hex.EncodeToString(d.Personalization[:])},
		{"lifecycle", state},
		{"debug", debug},
		{"smt", unknown("a token does not tell")},
		{"tcb", components(d.Components)},
	}, nil
}

// lifecycle names the platform's state and tells whether somebody may debug
// below the realm. A realm itself has no debug of which a token would tell.
func lifecycle(d cca.Description) (state, debug string) {
	if !d.Stated {
		const absent = "the token does not tell the lifecycle"
		return unknown(absent), unknown(absent)
	}
	number := fmt.Sprintf(" (%#04x)", d.Lifecycle)
	switch d.Lifecycle >> 8 {
	case cca.Assembly:
		return "assembly and test" + number, unknown("the platform is not secured yet")
	case cca.Provisioning:
		return "provisioning of the root of trust" + number, unknown("the platform is not secured yet")
	case cca.Secured:
		return "secured" + number, "false"
	case cca.NonCCADebug:
		return "secured, and debug of all but CCA" + number, "false"
	case cca.RecoverDebug:
		return "debug of CCA" + number, "true"
	case cca.Decommissioned:
		return "decommissioned" + number, unknown("the platform is out of service")
	}
	return unknown("no state of the specification" + number), unknown("the lifecycle is unknown")
}

// components are the software that the realm stands on, with its versions.
func components(list []cca.Component) string {
	var named []string
	versions := false
	for _, c := range list {
		if named = append(named, strings.TrimSpace(c.Type+" "+c.Version)); c.Version != "" {
			versions = true
		}
	}
	if !versions {
		return unknown("the token has no versions of its " + fmt.Sprint(len(list)) + " software components")
	}
	return strings.Join(named, ", ")
}
