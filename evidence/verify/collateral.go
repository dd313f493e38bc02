package verify

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
)

// Collateral is what vendors publish beside their certificates: Intel's TCB
// info, identity of the quoting enclave and CRLs, AMD's CRLs. All of it is
// signed, and what is used of it is verified then, so it may come from
// anywhere. The zero value is empty. It may be read from several goroutines
// once everything was added.
type Collateral struct {
	tcbInfos, identities []signedText
	certs                []*x509.Certificate
	crls                 []*x509.RevocationList
}

// signedText is a JSON text and the signature over its bytes, r ‖ s.
type signedText struct{ body, signature []byte }

// Bounds of what one Collateral takes.
const (
	maxCollateral = 16 << 20
	maxItems      = 1024
	maxNesting    = 8
)

// Add recognises a piece by its content: a recorded answer of Intel's
// provisioning certification service or of a PCCS, with or without its headers;
// its headers alone, which hold the chains; the file that Intel's PcsClientTool
// writes; certificates in PEM or DER; a CRL in PEM, DER or hex. Anything else
// wraps errdefs.ErrInvalidArgument.
func (c *Collateral) Add(data []byte) error {
	if len(data) > maxCollateral {
		return malformed("collateral of more than %d bytes", maxCollateral)
	}
	if head, body, found := bytes.Cut(data, []byte("\r\n\r\n")); found && bytes.HasPrefix(head, []byte("HTTP/")) {
		if _, err := c.text(string(head)); err != nil {
			return err
		}
		data = body
	}
	known, err := c.any(bytes.TrimSpace(data), data)
	if err != nil {
		return err
	}
	if !known {
		return malformed("no collateral that is known here")
	}
	return nil
}

// Certificates are those that were added, for the key of an SNP report.
func (c *Collateral) Certificates() []*x509.Certificate { return c.certs }

func (c *Collateral) any(text, raw []byte) (bool, error) {
	if bytes.HasPrefix(text, []byte("{")) {
		return c.json(text, 0)
	}
	if known, err := c.der(raw); known || err != nil {
		return known, err
	}
	return c.text(string(text))
}

// json walks through an object, whose members have other names in each tool,
// for what is signed.
func (c *Collateral) json(text json.RawMessage, depth int) (known bool, err error) {
	if depth > maxNesting {
		return false, malformed("collateral nests too deep")
	}
	switch text = bytes.TrimSpace(text); {
	case bytes.HasPrefix(text, []byte("{")):
		var members map[string]json.RawMessage
		if err := json.Unmarshal(text, &members); err != nil {
			return false, malformed("collateral")
		}
		if known, err := c.signed(members); known || err != nil {
			return known, err
		}
		for _, v := range members {
			k, err := c.json(v, depth+1)
			if known = known || k; err != nil {
				return false, err
			}
		}
	case bytes.HasPrefix(text, []byte("[")):
		var list []json.RawMessage
		if err := json.Unmarshal(text, &list); err != nil {
			return false, malformed("collateral")
		}
		for _, v := range list {
			k, err := c.json(v, depth+1)
			if known = known || k; err != nil {
				return false, err
			}
		}
	case bytes.HasPrefix(text, []byte(`"`)):
		var s string
		if json.Unmarshal(text, &s) == nil {
			return c.text(s)
		}
	}
	return known, nil
}

// signed keeps the text whose signature stands beside it. Tools indent it, but
// Intel signs it without any space.
func (c *Collateral) signed(members map[string]json.RawMessage) (bool, error) {
	for name, to := range map[string]*[]signedText{"tcbInfo": &c.tcbInfos, "enclaveIdentity": &c.identities} {
		if members[name] == nil {
			continue
		}
		var signature hexed
		var body bytes.Buffer
		if json.Unmarshal(members["signature"], &signature) != nil || len(signature) != 64 || json.Compact(&body, members[name]) != nil {
			return false, malformed("signature of %s", name)
		}
		*to = append(*to, signedText{body.Bytes(), signature})
		return true, c.full()
	}
	return false, nil
}

// text takes PEM, also as headers hold it, escaped for URLs; and a CRL in hex.
func (c *Collateral) text(s string) (known bool, err error) {
	if der, err := hex.DecodeString(s); err == nil && len(der) > 0 {
		return c.der(der)
	}
	for _, line := range strings.Split(s, "\n") {
		_, escaped, found := strings.Cut(line, "-----BEGIN%20")
		if !found {
			continue
		}
		plain, err := url.PathUnescape("-----BEGIN%20" + strings.TrimSpace(escaped))
		if err != nil {
			return false, malformed("issuer chain")
		}
		if known, err = c.pem([]byte(plain)); err != nil {
			return false, err
		}
	}
	if known {
		return true, nil
	}
	return c.pem([]byte(s))
}

func (c *Collateral) pem(text []byte) (known bool, err error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return known, nil
		}
		if known, err = c.der(block.Bytes); err != nil || !known {
			return false, err
		}
	}
}

func (c *Collateral) der(raw []byte) (bool, error) {
	if crl, err := x509.ParseRevocationList(raw); err == nil {
		c.crls = append(c.crls, crl)
		return true, c.full()
	}
	if cert, err := x509.ParseCertificate(raw); err == nil {
		c.certs = append(c.certs, cert)
		return true, c.full()
	}
	return false, nil
}

func (c *Collateral) full() error {
	if len(c.tcbInfos)+len(c.identities)+len(c.certs)+len(c.crls) > maxItems {
		return malformed("collateral of more than %d pieces", maxItems)
	}
	return nil
}

// missing says what has to be added.
func missing(format string, args ...any) error {
	return fmt.Errorf("collateral: "+format+" is missing: %w", append(args, errdefs.ErrNotFound)...)
}
