package verify

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"strings"
	"time"
)

// tcbInfo is what Intel says of a family of processors (Intel TDX: TCB info
// version 3). Its levels stand in descending order.
type tcbInfo struct {
	ID         string           `json:"id"`
	Version    int              `json:"version"`
	Issue      time.Time        `json:"issueDate"`
	Next       time.Time        `json:"nextUpdate"`
	FMSPC      string           `json:"fmspc"`
	PCEID      string           `json:"pceId"`
	Evaluation int              `json:"tcbEvaluationDataNumber"`
	Module     moduleIdentity   `json:"tdxModule"` // of modules whose major version is 0
	Modules    []moduleIdentity `json:"tdxModuleIdentities"`
	Levels     []tcbLevel       `json:"tcbLevels"`
}

type moduleIdentity struct {
	ID         string     `json:"id"`
	Signer     hexed      `json:"mrsigner"`
	Attributes hexed      `json:"attributes"`
	Mask       hexed      `json:"attributesMask"`
	Levels     []tcbLevel `json:"tcbLevels"`
}

// qeIdentity is what Intel says of its quoting enclave.
type qeIdentity struct {
	ID         string     `json:"id"`
	Version    int        `json:"version"`
	Issue      time.Time  `json:"issueDate"`
	Next       time.Time  `json:"nextUpdate"`
	Evaluation int        `json:"tcbEvaluationDataNumber"`
	Misc       hexed      `json:"miscselect"`
	MiscMask   hexed      `json:"miscselectMask"`
	Attributes hexed      `json:"attributes"`
	Mask       hexed      `json:"attributesMask"`
	Signer     hexed      `json:"mrsigner"`
	Product    uint16     `json:"isvprodid"`
	Levels     []tcbLevel `json:"tcbLevels"`
}

type tcbLevel struct {
	TCB struct {
		SGX []component `json:"sgxtcbcomponents"`
		TDX []component `json:"tdxtcbcomponents"`
		PCE uint16      `json:"pcesvn"`
		ISV uint16      `json:"isvsvn"` // of enclaves and modules
	} `json:"tcb"`
	Date       string   `json:"tcbDate"`
	Status     string   `json:"tcbStatus"`
	Advisories []string `json:"advisoryIDs"`
}

type component struct {
	SVN byte `json:"svn"`
}

// tcbInfoOf finds the newest TCB info of a family. Two that are valid at the
// same time differ in their evaluation number: one is published early.
func (c *Collateral) tcbInfoOf(fmspc string, o Options) (*tcbInfo, error) {
	var found *tcbInfo
	var text signedText
	for _, s := range c.tcbInfos {
		info := new(tcbInfo)
		if err := json.Unmarshal(s.body, info); err != nil || info.ID != "TDX" || !strings.EqualFold(info.FMSPC, fmspc) {
			continue
		}
		if found == nil || info.Evaluation > found.Evaluation {
			found, text = info, s
		}
	}
	if found == nil {
		return nil, missing("TCB info of TDX for FMSPC %s", fmspc)
	}
	if found.Version != 3 {
		return nil, unknown("TCB info of version %d", found.Version)
	}
	return found, c.issued(text, "TCB info", found.Issue, found.Next, o)
}

func (c *Collateral) identity(o Options) (*qeIdentity, error) {
	var found *qeIdentity
	var text signedText
	for _, s := range c.identities {
		id := new(qeIdentity)
		if err := json.Unmarshal(s.body, id); err != nil || id.ID != "TD_QE" {
			continue
		}
		if found == nil || id.Evaluation > found.Evaluation {
			found, text = id, s
		}
	}
	if found == nil {
		return nil, missing("identity of the quoting enclave for TDX")
	}
	if found.Version != 2 {
		return nil, unknown("identity of the quoting enclave of version %d", found.Version)
	}
	return found, c.issued(text, "identity of the quoting enclave", found.Issue, found.Next, o)
}

// issued checks that Intel's key for TCBs signed a text, and that the text is
// of this time.
func (c *Collateral) issued(text signedText, what string, from, to time.Time, o Options) error {
	reason := missing("certificate of Intel's TCB signing key")
	for _, cert := range c.certs {
		if cert.Subject.CommonName != "Intel SGX TCB Signing" {
			continue
		}
		chains, err := cert.Verify(x509.VerifyOptions{Roots: o.tdxRoots(), CurrentTime: o.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err != nil {
			reason = forged("certificate of the TCB signing key: %v", err)
			continue
		}
		if _, err := c.unrevoked(chains[0], o.now(), true); err != nil {
			return err
		}
		if key, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != curve256 || !signedBy(key, text.body, text.signature) {
			reason = forged("%s is not signed by Intel", what)
			continue
		}
		if now := o.now(); now.Before(from) || now.After(to) {
			return forged("%s is of another time, %s to %s", what, day(from), day(to))
		}
		return nil
	}
	return reason
}
