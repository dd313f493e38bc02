package tee

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
)

// flip changes a single bit of the statement's JSON, and changes it back when
// it is called again.
type flip func(body map[string]any)

// flipNumber changes a bit of bytes that are a list of numbers.
func flipNumber(bytes any, bit int) {
	list := bytes.([]any)
	list[bit/8] = float64(byte(list[bit/8].(float64)) ^ 1<<(bit%8))
}

// flipCert changes a bit of a certificate behind the signature of a quote.
func flipCert(number, bit int) flip {
	return func(body map[string]any) {
		primary := dig(body, "tee-evidence", "primary_evidence")
		raw, err := base64.StdEncoding.DecodeString(primary["quote"].(string))
		if err != nil {
			panic(err)
		}
		at := bytes.Index(raw, []byte("-----BEGIN"))
		rest := raw[at:]
		raw = raw[:at:at]
		for i := 0; ; i++ {
			block, after := pem.Decode(rest)
			if block == nil {
				break
			}
			if i == number {
				block.Bytes[bit/8] ^= 1 << (bit % 8)
			}
			raw, rest = append(raw, pem.EncodeToMemory(block)...), after
		}
		primary["quote"] = base64.StdEncoding.EncodeToString(append(raw, rest...))
	}
}

func flipBase64(member string, at, bit int) flip {
	return func(body map[string]any) {
		primary := dig(body, "tee-evidence", "primary_evidence")
		raw, err := base64.StdEncoding.DecodeString(primary[member].(string))
		if err != nil {
			panic(err)
		}
		raw[at+bit/8] ^= 1 << (bit % 8)
		primary[member] = base64.StdEncoding.EncodeToString(raw)
	}
}

// common are the changes that are not the platform's. The other is a statement
// of it for something else.
func common(other any) map[string][]flip {
	flips := map[string][]flip{}
	text := func(name, member string, path ...string) {
		from, size := 0, 32
		if member == "body" { // what stands between quotes, so that TOML takes most changes
			from, size = strings.Index(document, "agent_policy"), len("agent_policy")
		}
		for bit := range 7 * size {
			flips[name] = append(flips[name], func(body map[string]any) {
				m := dig(body, path...)
				b := []byte(m[member].(string))
				b[from+bit/7] ^= 1 << (bit % 7)
				m[member] = string(b)
			})
		}
	}
	text("nonce", "nonce", "runtime-data")
	// Keys with a changed bit are none. One that is, and another statement of
	// the same platform, are what report data is there for.
	var swapped any
	flips["another key"] = []flip{func(body map[string]any) {
		runtime := dig(body, "runtime-data")
		if swapped == nil {
			swapped = map[string]any{
				"alg": "ECDH-ES+A256KW", "crv": "P-256", "kty": "EC",
				"x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
				"y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
			}
		}
		runtime["tee-pubkey"], swapped = swapped, runtime["tee-pubkey"]
	}}
	flips["another statement"] = []flip{func(body map[string]any) {
		statement := dig(body, "tee-evidence")
		statement["primary_evidence"], other = other, statement["primary_evidence"]
	}}
	text("key x", "x", "runtime-data", "tee-pubkey")
	text("key y", "y", "runtime-data", "tee-pubkey")
	text("initdata", "body", "init-data")
	return flips
}

func dig(m map[string]any, path ...string) map[string]any {
	for _, p := range path {
		m = m[p].(map[string]any)
	}
	return m
}

// reasons are why a change is refused: the first is the one that it is there
// for, any other one is that the change left nothing to be judged.
var reasons = map[string][]string{
	"nonce":             {"the nonce is not that of the session"},
	"key x":             {"is not on the curve", "coordinate of another length"},
	"key y":             {"is not on the curve", "coordinate of another length"},
	"another key":       {"REPORT_DATA is different"},
	"another statement": {"REPORT_DATA is different"},
	"initdata":          {"not what the guest was launched with", "init-data is malformed"},

	"report_data":   {"report: signature does not match"},
	"measurement":   {"report: signature does not match"},
	"host_data":     {"report: signature does not match"},
	"chip_id":       {"report: signature does not match"},
	"policy":        {"report: signature does not match"},
	"plat_info":     {"report: signature does not match"},
	"guest_svn":     {"report: signature does not match"},
	"key_info":      {"report: signature does not match"},
	"SNP signature": {"report: signature does not match"},
	"VCEK":          {"crypto/rsa: verification error", "endorsement certificate: ", "no roots for"},

	"report data":              {"quote: signature does not match"},
	"MRTD":                     {"quote: signature does not match"},
	"MRCONFIGID":               {"quote: signature does not match"},
	"RTMR":                     {"quote: signature does not match"},
	"attributes":               {"quote: signature does not match"},
	"TDX signature":            {"quote: signature does not match"},
	"attestation key":          {"not the one of the quoting enclave"},
	"QE report":                {"report of the quoting enclave is not signed"},
	"QE report's signature":    {"report of the quoting enclave is not signed"},
	"PCK certificate":          {"ECDSA verification failure", "PCK certificate: x509", "certificate 0 of the chain", "leaf is not a PCK certificate"},
	"intermediate certificate": {"ECDSA verification failure", "PCK certificate: x509", "certificate 1 of the chain"},
	"event log":                {"event log does not replay to the runtime registers"},

	"report of the hardware":    {"report: signature does not match", "report is for VMPL", "report version", "signature algorithm"},
	"signature of the hardware": {"report: signature does not match"},
	"certificate of the chip":   {"crypto/rsa: verification error", "endorsement certificate", "no roots for"},
	"body of the quote":         {"quote: signature does not match"},
	"signature of the quote":    {"quote: signature does not match", "not the one of the quoting enclave"},
	"claims":                    {"not those that the processor's report vouches for", "hcl_report", "attestation key"},
	"type, hash and size":       {"which is another platform", "hash of type", "hcl_report"},
	"signature of the vTPM":     {"not signed by the attestation key"},
	"message of the vTPM":       {"not signed by the attestation key", "PCRs are not those", "TPM quote", "TPM signed something"},
	"PCRs":                      {"PCRs are not those of the TPM quote"},
}

// wantReasons wants the right reason at least once, and none that is not listed.
func wantReasons(t *testing.T, what string, seen map[string]int) {
	t.Helper()
	listed := reasons[what]
	if len(listed) == 0 {
		t.Fatalf("%s is refused for no known reason", what)
	}
	total, right := 0, 0
	for said, n := range seen {
		total += n
		if strings.Contains(said, listed[0]) {
			right += n
		} else if !slices.ContainsFunc(listed, func(r string) bool { return strings.Contains(said, r) }) {
			t.Errorf("%s: %d changes are refused with %q", what, n, said)
		}
	}
	if right == 0 {
		t.Errorf("%s: none of %d changes is refused for %q: %v", what, total, listed[0], seen)
	}
	t.Logf("%s: %d changes refused, %d for %q", what, total, right, listed[0])
}
