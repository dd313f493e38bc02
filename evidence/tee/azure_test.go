package tee

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/measure"
	"github.com/coffer-cc/coffer/evidence/tpm"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// azureHost is where a guest of the VM looks.
func azureHost(t *testing.T, vm *evidencetest.AzureVM) host {
	t.Helper()
	h := host{root: t.TempDir(), reports: &evidencetest.TSM{}, ioctl: ioctl, openSNP: openSNP}
	h.openTPM = func(path string) (*tpm.Device, error) {
		if path != filepath.Join(h.root, "/dev/tpmrm0") {
			return nil, os.ErrNotExist
		}
		return tpm.New(vm.Dial(t)), nil
	}
	return h
}

// onAzure is the guest of the VM, as it finds itself.
func onAzure(t *testing.T, vm *evidencetest.AzureVM) *azureGuest {
	t.Helper()
	c, err := Detect(azureHost(t, vm).drivers())
	if err != nil {
		t.Fatal(err)
	}
	g, ok := c.(*azureGuest)
	if !ok {
		t.Fatalf("found %s", c.Kind())
	}
	g.imds.base, g.imds.backoff = vm.IMDS.URL, time.Millisecond
	return g
}

func azureSNP(t *testing.T) *evidencetest.AzureVM {
	return evidencetest.NewAzureVM(t, evidencetest.NewSNP(t), nil)
}

func azureTDX(t *testing.T) *evidencetest.AzureVM {
	return evidencetest.NewAzureVM(t, nil, evidencetest.NewTDX(t))
}

func azureOptions(vm *evidencetest.AzureVM) verify.Options {
	if vm.TDX != nil {
		return verify.Options{TDXRoots: vm.TDX.Roots()}
	}
	return snpOptions(vm.SNP)
}

var azures = map[evidence.Kind]func(*testing.T) *evidencetest.AzureVM{evidence.AzSNP: azureSNP, evidence.AzTDX: azureTDX}

func TestAzurePresent(t *testing.T) {
	for kind, launch := range azures {
		t.Run(string(kind), func(t *testing.T) {
			vm := launch(t)
			h := azureHost(t, vm)
			if c, err := Detect(h.drivers()); err != nil || c.Kind() != kind {
				t.Errorf("Detect = %v, %v", c, err)
			}
			if !Present(h.drivers()) {
				t.Error("the guest counts as one that nothing keeps from its host")
			}
			if c, err := Select("sample", h.drivers()); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("sample by name: %v, %v", c, err)
			}
		})
	}
}

// A host attaches to a guest of real hardware the vTPM of a paravisor, complete
// with a report and a key. Whatever shows the hardware comes first, so that no
// register of that TPM takes the place of the launch anchor.
func TestAzureDivertsNobody(t *testing.T) {
	signs := []struct {
		provider, file, text string
		want                 evidence.Kind
	}{
		{"", "dev/tdx_guest", "", evidence.TDX},
		{"", "proc/cpuinfo", "flags\t\t: fpu tdx_guest\n", evidence.TDX},
		{"tdx_guest", "", "", evidence.TDX},
		{"", "dev/sev-guest", "", evidence.SNP},
		{"", "sys/devices/platform/sev-guest", "", evidence.SNP},
		{"sev_guest", "", "", evidence.SNP},
		{"", "sys/devices/platform/arm-cca-dev", "", evidence.CCA},
		{"arm_cca_guest", "", "", evidence.CCA},
		{"", "sys/firmware/uv/prot_virt_guest", "1\n", evidence.SE},
	}
	for kind, launch := range azures {
		vm := launch(t)
		for _, sign := range signs {
			t.Run(fmt.Sprintf("%s by %s%s beside %s", sign.want, sign.provider, sign.file, kind), func(t *testing.T) {
				h := azureHost(t, vm)
				h.reports = &evidencetest.TSM{Provider: sign.provider}
				if sign.file != "" {
					put(t, h.root, sign.file, []byte(sign.text))
				}
				c, err := Detect(h.drivers())
				if err != nil || c.Kind() != sign.want {
					t.Fatalf("Detect = %v, %v", c, err)
				}
				if _, extends := c.(evidence.Extendable); extends {
					t.Error("its initdata goes into a register of the TPM")
				}
				if c, err := Select(string(kind), h.drivers()); !errdefs.IsFailedPrecondition(err) {
					t.Errorf("%s by name: %v, %v", kind, c, err)
				}
			})
		}
	}
}

func TestAzureAbsent(t *testing.T) {
	for name, edit := range map[string]func([]byte){
		"VBS":             func(r []byte) { r[hclRequest+8] = 1 },
		"VM without TEE":  func(r []byte) { r[hclRequest+8] = 3 },
		"CCA":             func(r []byte) { r[hclRequest+8] = 5 },
		"other content":   func(r []byte) { r[0] = 'h' },
		"endless claims":  func(r []byte) { r[hclRequest+19] = 0x80 },
		"nothing but FFs": func(r []byte) { copy(r, bytes.Repeat([]byte{0xff}, len(r))) },
	} {
		t.Run(name, func(t *testing.T) {
			vm := azureSNP(t)
			vm.Edit = edit
			if c, err := Detect(azureHost(t, vm).drivers()); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "HCL report of type 2 at NV index 0x1400001") {
				t.Errorf("Detect = %v, %v", c, err)
			}
		})
	}
}

func TestAzureEvidence(t *testing.T) {
	for kind, launch := range azures {
		t.Run(string(kind), func(t *testing.T) {
			vm := launch(t)
			g := onAzure(t, vm)
			for _, size := range []int{48, 0, 20, 64, 48} {
				in := bytes.Repeat([]byte{byte(size + 1)}, size)
				rd, err := evidence.NewReportData(in)
				if err != nil {
					t.Fatal(err)
				}
				e, err := g.Collect(t.Context(), rd)
				if err != nil {
					t.Fatalf("%d bytes: %v", size, err)
				}
				st, err := verify.Evidence(kind, e.Data, azureOptions(vm))
				if err != nil {
					t.Fatalf("%d bytes: %v", size, err)
				}
				if e.Kind != kind || !st.Carries(in) || st.Debug || st.PCR[8] != [32]byte{} {
					t.Errorf("evidence says %+v", st)
				}
			}
			if vm.IMDS.Certificates()+vm.IMDS.Quotes() != vm.IMDS.Requests() {
				t.Errorf("%d requests", vm.IMDS.Requests())
			}
			if vm.SNP != nil && vm.IMDS.Certificates() != 1 {
				t.Errorf("the VCEK was fetched %d times", vm.IMDS.Certificates())
			}
			if vm.TDX != nil && vm.IMDS.Quotes() != 5 {
				t.Errorf("%d quotes for 5 statements", vm.IMDS.Quotes())
			}
		})
	}
}

// TestAzureLikeTrustee compares with evidence that Trustee has recorded: the
// members in their order, and how each is written.
func TestAzureLikeTrustee(t *testing.T) {
	e, err := onAzure(t, azureSNP(t)).Collect(t.Context(), someData(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(shape(t, evidencetest.Fixture(t, "azure/az-snp-vtpm/evidence-v2.json")), shape(t, e.Data)); diff != "" {
		t.Errorf("(-recorded +got):\n%s", diff)
	}
	if e, err = onAzure(t, azureTDX(t)).Collect(t.Context(), reportData(t, "challenge")); err != nil {
		t.Fatal(err)
	}
	recorded := bytes.Replace(evidencetest.Fixture(t, "azure/az-tdx-vtpm/evidence-v1.json"), []byte(`"version": 1`), []byte(`"version": 2`), 1)
	if diff := cmp.Diff(shape(t, recorded), shape(t, e.Data)); diff != "" {
		t.Errorf("TDX (-recorded +got):\n%s", diff)
	}
}

// shape lists the tokens, with the encoding in the place of long texts: what
// decodes as hex, else what decodes as padded base64url.
func shape(t *testing.T, data []byte) (list []string) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	for d.More() || len(list) > 0 {
		token, err := d.Token()
		if err != nil {
			break
		}
		text, ok := token.(string)
		if raw, err := hex.DecodeString(text); ok && err == nil && strings.ToLower(text) == text {
			token = fmt.Sprintf("hex of %d bytes", len(raw))
		} else if _, err := base64.URLEncoding.DecodeString(text); ok && err == nil && len(text) > 100 {
			token = "padded base64url"
		}
		list = append(list, fmt.Sprint(token))
	}
	return list
}

// TestAzureStale reads again until the report carries the data.
func TestAzureStale(t *testing.T) {
	vm := azureSNP(t)
	g := onAzure(t, vm)
	vm.Stale = 3
	before := vm.Renewed()
	e, err := g.Collect(t.Context(), someData(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify.Evidence(evidence.AzSNP, e.Data, azureOptions(vm)); err != nil || vm.Renewed() != before+1 || vm.Stale != 0 {
		t.Errorf("%v after %d renewals", err, vm.Renewed()-before)
	}
	vm.Deaf, g.wait = true, 10*time.Millisecond
	rd := reportData(t, "other")
	if e, err := g.Collect(t.Context(), rd); !errdefs.IsUnavailable(err) || evidence.CodeOf(err) != evidence.DriverTimeout || !strings.Contains(err.Error(), "paravisor") {
		t.Errorf("a deaf paravisor: %s, %v", e.Data, err)
	}
	g.wait = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if e, err := g.Collect(ctx, rd); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller in a hurry: %s, %v", e.Data, err)
	}
}

func TestAzureRefusals(t *testing.T) {
	request := func(at int, v byte) func(*evidencetest.AzureVM) {
		return func(vm *evidencetest.AzureVM) { vm.Edit = func(r []byte) { r[hclRequest+at] = v } }
	}
	claims := func(old, new string) func(*evidencetest.AzureVM) {
		return func(vm *evidencetest.AzureVM) {
			vm.EditClaims = func(s string) string { return strings.Replace(s, old, new, 1) }
		}
	}
	for name, c := range map[string]struct {
		launch func(*testing.T) *evidencetest.AzureVM
		edit   func(*evidencetest.AzureVM)
		class  func(error) bool
		code   evidence.Code
		fault  string
	}{
		"other type": {azureSNP, request(8, 3), errdefs.IsInvalidArgument, evidence.DriverReply, "of type 3"},
		"SHA-384":    {azureSNP, request(12, 2), errdefs.IsNotImplemented, evidence.PlatformUnsupported, "algorithm 2"},
		"changed claims": {azureTDX, func(vm *evidencetest.AzureVM) {
			vm.Edit = func(r []byte) { r[hclClaims+len(`{"keys":[{"kid":"HCLAkPub","key_ops":["s`)] = 'S' }
		}, errdefs.IsDataLoss, evidence.DriverReply, "does not vouch"},
		"no key":           {azureSNP, claims("HCLAkPub", "HCLEkPub"), errdefs.IsInvalidArgument, evidence.DriverReply, "no key HCLAkPub"},
		"odd key":          {azureSNP, claims(`"kty":"RSA"`, `"kty":"EC"`), errdefs.IsInvalidArgument, evidence.DriverReply, "no RSA key"},
		"short key":        {azureSNP, claims(`"n":"`, `"n":"AQAB","x":"`), errdefs.IsInvalidArgument, evidence.DriverReply, "no RSA key"},
		"huge exponent":    {azureSNP, claims(`"e":"AQAB"`, `"e":"AQABAQAB"`), errdefs.IsInvalidArgument, evidence.DriverReply, "no RSA key"},
		"other key":        {azureSNP, claims(`"e":"AQAB"`, `"e":"AQAD"`), errdefs.IsDataLoss, evidence.DriverReply, "another key"},
		"not JSON":         {azureSNP, claims(`{"keys"`, `("keys"`), errdefs.IsInvalidArgument, evidence.DriverReply, "not JSON"},
		"odd user-data":    {azureSNP, claims(`"user-data":"`, `"user-data":"x`), errdefs.IsInvalidArgument, evidence.DriverReply, "user-data"},
		"long user-data":   {azureSNP, claims(`"user-data":"`, `"user-data":"00`), errdefs.IsInvalidArgument, evidence.DriverReply, "user-data"},
		"report version 2": {azureSNP, func(vm *evidencetest.AzureVM) { vm.SNP.Version = 2 }, errdefs.IsFailedPrecondition, evidence.PlatformUnsupported, "version 2"},
		"VMPL 2":           {azureSNP, func(vm *evidencetest.AzureVM) { vm.SNP.VMPL = 2 }, errdefs.IsFailedPrecondition, evidence.PlatformUnsupported, "VMPL 2"},
		"no TDREPORT":      {azureTDX, func(vm *evidencetest.AzureVM) { vm.Edit = func(r []byte) { r[hclHardware] = 0 } }, errdefs.IsInvalidArgument, evidence.DriverReply, "TEE type 0x0"},
		"quote of another": {azureTDX, func(vm *evidencetest.AzureVM) { vm.TDX.Edit = func(q []byte) { q[48+520] ^= 1 } }, errdefs.IsDataLoss, evidence.DriverReply, "report data"},
		"quote refused":    {azureTDX, func(vm *evidencetest.AzureVM) { vm.Edit = func(r []byte) { r[hclHardware+600] ^= 1 } }, errdefs.IsUnavailable, evidence.EndorsementQuoting, "status 500"},
	} {
		t.Run(name, func(t *testing.T) {
			vm := c.launch(t)
			g := onAzure(t, vm)
			c.edit(vm)
			e, err := g.Collect(t.Context(), someData(t))
			if err == nil || !c.class(err) || evidence.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("Collect = %s, %v", e.Data, err)
			}
		})
	}
}

// TestAzureTPMGone sees a TPM that disappears, and one without the key.
func TestAzureTPMGone(t *testing.T) {
	vm := azureSNP(t)
	g := onAzure(t, vm)
	open := g.host.openTPM
	g.host.openTPM = func(string) (*tpm.Device, error) { return nil, os.ErrNotExist }
	if _, err := g.Collect(t.Context(), someData(t)); !errors.Is(err, os.ErrNotExist) || evidence.CodeOf(err) != evidence.DriverDevice {
		t.Errorf("without a TPM: %v", err)
	}
	g.host.openTPM = open
	vm.TPM.Evict(t, azureKey)
	if _, err := g.Collect(t.Context(), someData(t)); !errdefs.IsNotFound(err) || evidence.CodeOf(err) != evidence.DriverIoctl {
		t.Errorf("without the key: %v", err)
	}
}

// TestAzureFirmwareReplaced fetches the certificate of the new firmware, and
// does not keep one that does not fit.
func TestAzureFirmwareReplaced(t *testing.T) {
	vm := azureSNP(t)
	g := onAzure(t, vm)
	collect := func() error {
		_, err := g.Collect(t.Context(), someData(t))
		return err
	}
	for _, other := range [][]byte{otherVCEK(t), between(vm)} {
		vm.IMDS.Script = answer(vcekAnswer(other))
		if err := collect(); !errdefs.IsFailedPrecondition(err) || evidence.CodeOf(err) != evidence.EndorsementCertificates {
			t.Errorf("the certificate of another key: %v", err)
		}
	}
	vm.IMDS.Script = nil
	for range 2 {
		if err := collect(); err != nil {
			t.Fatal(err)
		}
	}
	vm.SNP.Edit = func(r []byte) { r[0x186] = 9 } // the version of the SNP firmware
	for range 2 {
		if err := collect(); err != nil {
			t.Fatal(err)
		}
	}
	if vm.IMDS.Certificates() != 2 {
		t.Errorf("fetched %d times, want once for each firmware", vm.IMDS.Certificates())
	}
	vm.IMDS.Script = answer("no certificate")
	if err := collect(); err != nil {
		t.Errorf("with the certificate at hand: %v", err)
	}
}

func between(vm *evidencetest.AzureVM) []byte {
	_, ask := vm.SNP.Roots()
	return ask.Raw
}

// otherVCEK is a certificate of a chip that has signed nothing.
func otherVCEK(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "SEV-VCEK"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// vcekAnswer is what the metadata service says.
func vcekAnswer(der []byte) string {
	text, err := json.Marshal(map[string]string{"vcekCert": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))})
	if err != nil {
		panic(err) // it is a text
	}
	return string(text)
}

// answer makes the metadata service say the same to everybody.
func answer(text string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = io.WriteString(w, text) // the guest may hang up
		return true
	}
}

// TestAzureRegisters extends PCR 8 once, and records into another.
func TestAzureRegisters(t *testing.T) {
	vm := azureTDX(t)
	g := onAzure(t, vm)
	var anchor evidence.Extendable = g
	if before, err := anchor.ReadAnchor(t.Context()); err != nil || before != [32]byte{} || !anchor.AnchorBinds() {
		t.Fatalf("before: %x, %v, binds %v", before, err, anchor.AnchorBinds())
	}
	digest := sha256.Sum256([]byte("document"))
	if err := anchor.ExtendAnchor(t.Context(), digest); err != nil {
		t.Fatal(err)
	}
	log, err := g.OpenLog(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Append(measure.Entry{Domain: "coffer", Operation: "Test", Content: "x"}, 9); err != nil {
		t.Fatal(err)
	}
	e, err := g.Collect(t.Context(), someData(t))
	if err != nil {
		t.Fatal(err)
	}
	st, err := verify.Evidence(evidence.AzTDX, e.Data, azureOptions(vm))
	if err != nil {
		t.Fatal(err)
	}
	if !st.BootedWith(digest[:]) || st.PCR[9] == [32]byte{} {
		t.Errorf("PCR 8 %x, PCR 9 %x", st.PCR[8], st.PCR[9])
	}
	var sent struct {
		EventLog []byte `json:"cc_eventlog"`
	}
	if err := json.Unmarshal(e.Data, &sent); err != nil || !bytes.Contains(sent.EventLog, []byte("coffer Test x")) {
		t.Errorf("sent the log %q, %v", sent.EventLog, err)
	}
}
