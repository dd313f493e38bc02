package vmtest

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/tpm"
	"github.com/coffer-cc/coffer/rootfs/image"
	"github.com/coffer-cc/coffer/rootfs/vm"
)

// akHandle is where the agent looks for the attestation key.
const akHandle = 0x81010002

// A provisioned TPM has an attestation key, and is turned off.
type provisioned struct {
	state string // directory
	ak    string // SHA-256 of the public key, as rules name it
}

func provisionTPM(t *testing.T) provisioned {
	t.Helper()
	s := evidencetest.StartSWTPM(t)
	s.AK(t, akHandle, evidencetest.RSAKey)
	d := tpm.New(s.Dial(t))
	defer d.Close()
	public, err := d.ReadPublic(akHandle)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	d.Close()
	s.Off()
	return provisioned{state: s.State, ak: hex.EncodeToString(sum[:])}
}

// tpmImage is an image that expects a TPM. Whether it takes a document from the
// host of that TPM is its own word.
func tpmImage(t *testing.T, allow bool) vm.Config {
	t.Helper()
	config := filepath.Join(t.TempDir(), "agent.toml")
	text := fmt.Sprintf("server_peer_cids = [1, 2]\nguest_components_procs = \"api-server-rest\"\n[attestation]\ntee = \"tpm\"\nallow_unbound_initdata = %v\n", allow)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Variant{Config: config, Add: []image.Addition{testProgram(t)}}.Build(t)
}

const tpmSecret = "a key of the owner"

// TestTPM boots the agent as it ships on a TPM: a key is released to that TPM
// and document alone.
func TestTPM(t *testing.T) {
	ownMachine(t)
	p := provisionTPM(t)
	text, attested := serveKeys(t, p.ak)
	c := tpmImage(t, true)
	c.Disks, c.TPM = withDisks(t, initdataDisk(t, text)).Disks, p.state
	c.Words = append(c.Words, "cgroup_no_v1=all")
	c.Network = &vm.Network{MAC: cardMAC}
	c.Shares = sharedConfig(t).Shares
	g := Boot(t, c)
	if log := g.Console(); !strings.Contains(log, `"tee":"tpm"`) || !strings.Contains(log, "not bound to hardware") {
		t.Error("the log does not say that a TPM of the host was found")
	}
	g.createSandbox(t, "pod")
	g.setUpCard(t)
	if out := g.run(t, "key", fetch(1)...); out != tpmSecret {
		t.Errorf("the key is %q", out)
	}
	for _, n := range []int{2, 3} {
		id := fmt.Sprint("refused", n)
		g.start(t, id, containerSpec(id, fetch(n)...))
		if out, code := g.output(t, id), g.wait(t, id); code == 0 || out != "" {
			t.Errorf("key %d: ended with %d, %q", n, code, out)
		}
	}
	if attested.Load() == 0 {
		t.Error("nobody attested")
	}
}

// fetch is how a container asks for a key.
func fetch(n int) []string {
	return []string{"wget", "-q", "-O", "-", fmt.Sprintf("http://127.0.0.1:8006/cdh/resource/default/key/%d", n)}
}

// sha256Document is the text of a document that fits PCR 8.
func sha256Document(entries map[string]string) string {
	return strings.Replace(document(entries), "sha384", "sha256", 1)
}

// tpmRules give key 1 to the TPM with the document alone, key 2 to another TPM
// and key 3 with another document.
func tpmRules(ak, text string) string {
	other := strings.Repeat("00", 32)
	sum := sha256.Sum256([]byte(text))
	pcr8 := sha256.Sum256(append(make([]byte, 32), sum[:]...))
	return fmt.Sprintf(`
[[resource]]
path = "default/key/1"
tee = ["tpm"]
ak = [%[1]q]
initdata = ["%[3]x"]
unbound = true
pcr = { 8 = "%[4]x" }
[[resource]]
path = "default/key/2"
tee = ["tpm"]
ak = [%[2]q]
[[resource]]
path = "default/key/3"
tee = ["tpm"]
ak = [%[1]q]
initdata = [%[2]q]
unbound = true
`, ak, other, sum, pcr8)
}

// serveKeys starts a broker for guests with the TPM and returns the document
// that names it, and the number of its attestations.
func serveKeys(t *testing.T, ak string) (text string, attested *atomic.Int64) {
	t.Helper()
	l := listen(t)
	text = sha256Document(map[string]string{
		"aa.toml": fmt.Sprintf("[token_configs.kbs]\nurl = \"http://10.0.2.2:%d\"\n", l.Addr().(*net.TCPAddr).Port),
	})
	rules, err := devkbs.ParseRules([]byte(tpmRules(ak, text)))
	if err != nil {
		t.Fatal(err)
	}
	keys := evidencetest.Resources(map[string]string{"default/key/1": tpmSecret, "default/key/2": tpmSecret, "default/key/3": tpmSecret})
	broker, err := devkbs.New(devkbs.Options{Resources: keys, Rules: rules, Issuer: "owner", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	attested = new(atomic.Int64)
	server := &httptest.Server{
		Listener: l,
		Config: &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/attest") {
				attested.Add(1)
			}
			broker.ServeHTTP(w, r)
		})},
	}
	server.Start()
	t.Cleanup(server.Close)
	return text, attested
}

// TestTPMRefusals sees the reason on the console and the machine off.
func TestTPMRefusals(t *testing.T) {
	ownMachine(t)
	doc := initdataDisk(t, sha256Document(map[string]string{"aa.toml": ""}))
	sha384 := initdataDisk(t, document(map[string]string{"aa.toml": ""}))
	allowed, strict := tpmImage(t, true), tpmImage(t, false)
	for name, tc := range map[string]struct {
		image vm.Config
		disks [][]byte
		words []string
		want  string
	}{
		"extended before, document":    {allowed, [][]byte{doc}, extendFirst, "not zero as after a reset"},
		"extended before, no document": {allowed, nil, extendFirst, "not zero as after a reset"},
		"no consent of the image":      {strict, [][]byte{doc}, nil, "allow_unbound_initdata"},
		"digest of another algorithm":  {allowed, [][]byte{sha384}, nil, "names sha384"},
	} {
		t.Run(name, func(t *testing.T) {
			c := tc.image
			c.Disks, c.TPM = withDisks(t, tc.disks...).Disks, provisionTPM(t).state
			c.Words = tc.words
			machine := Start(t, c)
			defer machine.Stop()
			defer showConsole(t, machine)
			waitOff(t, machine)
			said := 0
			for line := range strings.Lines(machine.Console()) {
				if strings.HasPrefix(line, "coffer-agent:") && strings.Contains(line, "initdata/refused") && strings.Contains(line, tc.want) {
					said++
				}
				if strings.Contains(line, readyText) {
					t.Error("the agent served")
				}
			}
			if said != 1 {
				t.Errorf("the console says %d times that %s", said, tc.want)
			}
		})
	}
}

// Somebody who runs before the agent:
//
//	kernel ── rdinit=/vmtest ──▶ PID 1: the test program extends PCR 8
//	                               └─ becomes /init, so the agent is PID 1
const extendWord = "extend"

var extendFirst = []string{"rdinit=" + insideProgram, "--", extendWord}

// extendThenBoot returns only when it fails.
func extendThenBoot() error {
	if err := errors.Join(os.MkdirAll("/dev", 0o755), unix.Mount("devtmpfs", "/dev", "devtmpfs", 0, "")); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	d, err := tpm.Open("/dev/tpmrm0")
	if err != nil {
		return err
	}
	if err := errors.Join(d.Extend(8, tpm.Digest{1}), d.Close(), unix.Unmount("/dev", 0)); err != nil {
		return err
	}
	return fmt.Errorf("become the agent: %w", unix.Exec("/init", []string{"/init"}, nil))
}
