package tee

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/tpm"
)

func azSNPUnderTest(t *testing.T) guestUnderTest {
	p := evidencetest.NewSNP(t)
	p.Measurement = measurement
	g := azureUnderTest(t, evidencetest.NewAzureVM(t, p, nil))
	g.debug = func() { p.Debug = true }
	g.azureBits("report of the hardware", "hcl_report", hclHardware, reportSignature, 11)
	g.azureBits("signature of the hardware", "hcl_report", hclHardware+reportSignature, 48, 1)
	g.azureBits("certificate of the chip", "vcek", 0, len(p.VCEK().Raw), 37)
	return g
}

func azTDXUnderTest(t *testing.T) guestUnderTest {
	p := evidencetest.NewTDX(t)
	p.MRTD = measurement
	g := azureUnderTest(t, evidencetest.NewAzureVM(t, nil, p))
	g.debug = func() { p.Debug = true }
	g.azureBits("body of the quote", "td_quote", quoteHeader, quoteBody, 11)
	g.azureBits("signature of the quote", "td_quote", quoteHeader+quoteBody+4, 128, 3)
	return g
}

// azureUnderTest is a VM whose guest has put the document into PCR 8.
func azureUnderTest(t *testing.T, vm *evidencetest.AzureVM) guestUnderTest {
	collector := onAzure(t, vm)
	g := guestUnderTest{
		collector: collector, trust: azureOptions(vm), flips: map[string][]flip{},
		document: strings.Replace(document, "sha384", "sha256", 1), // what a PCR takes
	}
	digest := sha256.Sum256([]byte(g.document))
	if err := collector.ExtendAnchor(t.Context(), digest); err != nil {
		t.Fatal(err)
	}
	g.initData = digest[:]
	g.azureBits("claims", "hcl_report", hclClaims, claimsOf(t, collector), 11)
	g.azureBits("type, hash and size", "hcl_report", hclRequest+8, 12, 1)
	g.quoteBits("signature of the vTPM", "signature", 256, 7)
	g.quoteBits("message of the vTPM", "message", 161, 3)
	for i := range tpm.PCRs {
		for bit := range 256 {
			if bit%16 == i%16 {
				g.flips["PCRs"] = append(g.flips["PCRs"], func(body map[string]any) {
					pcrs := dig(body, "tee-evidence", "primary_evidence", "tpm_quote")["pcrs"].([]any)
					pcrs[i] = flipHex(pcrs[i].(string), bit)
				})
			}
		}
	}
	return g
}

// claimsOf is how long the claims are.
func claimsOf(t *testing.T, g *azureGuest) int {
	t.Helper()
	e, err := g.Collect(t.Context(), someData(t))
	if err != nil {
		t.Fatal(err)
	}
	var sent azureEvidence
	if err := json.Unmarshal(e.Data, &sent); err != nil {
		t.Fatal(err)
	}
	raw, err := base64.URLEncoding.DecodeString(sent.Report)
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseHCL(raw)
	if err != nil {
		t.Fatal(err)
	}
	return len(r.claims)
}

// azureBits changes every step-th bit of a part of a member in base64url.
func (g guestUnderTest) azureBits(name, member string, at, size, step int) {
	for bit := 0; bit < 8*size; bit += step {
		g.flips[name] = append(g.flips[name], func(body map[string]any) {
			primary := dig(body, "tee-evidence", "primary_evidence")
			raw, err := base64.URLEncoding.DecodeString(primary[member].(string))
			if err != nil {
				panic(err)
			}
			raw[at+bit/8] ^= 1 << (bit % 8)
			primary[member] = base64.URLEncoding.EncodeToString(raw)
		})
	}
}

// quoteBits does so in a member of the vTPM's quote, in hex.
func (g guestUnderTest) quoteBits(name, member string, size, step int) {
	for bit := 0; bit < 8*size; bit += step {
		g.flips[name] = append(g.flips[name], func(body map[string]any) {
			quote := dig(body, "tee-evidence", "primary_evidence", "tpm_quote")
			quote[member] = flipHex(quote[member].(string), bit)
		})
	}
}

func flipHex(text string, bit int) string {
	raw, err := hex.DecodeString(text)
	if err != nil {
		panic(err)
	}
	raw[bit/8] ^= 1 << (bit % 8)
	return hex.EncodeToString(raw)
}
