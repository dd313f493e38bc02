package tee

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/initdata"
	"github.com/coffer-cc/coffer/evidence/kbs"
	"github.com/coffer-cc/coffer/evidence/measure"
	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/verify"
)

const (
	document = "version = \"0.1.0\"\nalgorithm = \"sha384\"\n[data]\n\"policy.rego\" = \"package agent_policy\"\n"
	keyPath  = "default/key/1"
	keyText  = "a key of the owner"
)

var measurement = [48]byte{0xc0, 0xff, 0xe5}

// guestUnderTest is a platform, launched with the document, and what a broker
// has to trust and may demand.
type guestUnderTest struct {
	collector evidence.Collector
	trust     verify.Options
	document  string
	initData  []byte            // its digest, as the rules have it
	debug     func()            // relaunch as a debug guest
	flips     map[string][]flip // by what they change
}

func snpUnderTest(t *testing.T) guestUnderTest {
	p := evidencetest.NewSNP(t)
	p.Measurement = measurement
	digest, err := initdata.Digest("sha384", []byte(document))
	if err != nil {
		t.Fatal(err)
	}
	p.HostData = [32]byte(initdata.Pad(digest, 32))
	g := guestUnderTest{
		collector: onDevice(t, p), trust: snpOptions(p), document: document, initData: digest, debug: func() { p.Debug = true },
		flips: map[string][]flip{},
	}
	for field, at := range map[string][2]int{"report_data": {64, 1}, "measurement": {48, 1}, "host_data": {32, 1}, "chip_id": {64, 5}} {
		for bit := 0; bit < 8*at[0]; bit += at[1] {
			g.flips[field] = append(g.flips[field], func(body map[string]any) {
				flipNumber(dig(body, "tee-evidence", "primary_evidence", "attestation_report")[field], bit)
			})
		}
	}
	for _, half := range []string{"r", "s"} {
		for bit := 0; bit < 8*72; bit += 5 {
			g.flips["SNP signature"] = append(g.flips["SNP signature"], func(body map[string]any) {
				flipNumber(dig(body, "tee-evidence", "primary_evidence", "attestation_report", "signature")[half], bit)
			})
		}
	}
	for i, c := range parseCertTable(p.Table()) {
		if c.Type != "VCEK" {
			continue // the verifier has its own of the others, and looks at none that it is sent
		}
		for bit := 0; bit < 8*len(c.Data); bit += 97 {
			g.flips[c.Type] = append(g.flips[c.Type], func(body map[string]any) {
				chain := dig(body, "tee-evidence", "primary_evidence")["cert_chain"].([]any)
				flipNumber(chain[i].(map[string]any)["data"], bit)
			})
		}
	}
	for _, field := range []string{"policy", "plat_info", "guest_svn", "key_info"} {
		for bit := range 32 {
			g.flips[field] = append(g.flips[field], func(body map[string]any) {
				report := dig(body, "tee-evidence", "primary_evidence", "attestation_report")
				report[field] = float64(uint64(report[field].(float64)) ^ 1<<bit)
			})
		}
	}
	return g
}

func tdxUnderTest(t *testing.T) guestUnderTest {
	p := evidencetest.NewTDX(t)
	p.MRTD = measurement
	digest, err := initdata.Digest("sha384", []byte(document))
	if err != nil {
		t.Fatal(err)
	}
	p.MRConfigID = [48]byte(digest)
	collector := tdxOnConfigfs(t, p)
	area := evidencetest.Fixture(t, "eventlog/ccel_data.dat.gz")
	put(t, collector.host.root, ccel, area)
	events, used, err := measure.CCEL(area)
	if err != nil {
		t.Fatal(err)
	}
	if p.RTMR, err = measure.Replay(events); err != nil {
		t.Fatal(err)
	}
	g := guestUnderTest{
		collector: collector, trust: verify.Options{TDXRoots: p.Roots()}, document: document, initData: digest, debug: func() { p.Debug = true },
		flips: map[string][]flip{},
	}
	for field, at := range map[string][3]int{"report data": {568, 64, 1}, "MRTD": {184, 48, 1}, "MRCONFIGID": {232, 48, 1}, "RTMR": {376, 192, 11}, "attributes": {168, 8, 1}, "TDX signature": {636, 64, 3}, "attestation key": {700, 64, 3}, "QE report": {770, 384, 11}, "QE report's signature": {1154, 64, 3}} {
		for bit := 0; bit < 8*at[1]; bit += at[2] {
			g.flips[field] = append(g.flips[field], flipBase64("quote", at[0], bit))
		}
	}
	for number, name := range []string{"PCK certificate", "intermediate certificate"} {
		for bit := 0; bit < 8*440; bit += 97 {
			g.flips[name] = append(g.flips[name], flipCert(number, bit))
		}
	}
	for _, e := range events {
		if !e.Measured() {
			continue
		}
		at := bytes.Index(used, e.Digests[measure.SHA384])
		for bit := 0; bit < 8*48; bit += 61 {
			g.flips["event log"] = append(g.flips["event log"], flipBase64("cc_eventlog", at, bit))
		}
	}
	return g
}

func uri(t *testing.T) resource.URI {
	t.Helper()
	u, err := resource.ParsePath(keyPath)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func rulesFor(g guestUnderTest) string {
	return fmt.Sprintf("[[resource]]\npath = \"default/key/*\"\ntee = [%q]\nmeasurement = [%q]\ninitdata = [%q]\n",
		g.collector.Kind(), hex.EncodeToString(measurement[:]), hex.EncodeToString(g.initData))
}

func brokerFor(t *testing.T, g guestUnderTest, rules string) *evidencetest.KBS {
	t.Helper()
	parsed, err := devkbs.ParseRules([]byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	return evidencetest.NewKBS(t, devkbs.Options{
		Resources: evidencetest.Resources(map[string]string{keyPath: keyText}), Rules: parsed, Verify: g.trust, Issuer: "owner",
	})
}

func clientFor(t *testing.T, g guestUnderTest, broker *evidencetest.KBS) *kbs.Client {
	t.Helper()
	c, err := kbs.New(kbs.Config{URL: broker.URL, Collector: g.collector, InitData: []byte(g.document), Backoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var platforms = map[string]func(*testing.T) guestUnderTest{
	"snp": snpUnderTest, "tdx": tdxUnderTest, "az-snp-vtpm": azSNPUnderTest, "az-tdx-vtpm": azTDXUnderTest,
}

// TestHandshake gets a key for the evidence of a platform, and does not where
// the owner wants another guest.
func TestHandshake(t *testing.T) {
	other := hex.EncodeToString(make([]byte, 48))
	for name, launch := range platforms {
		t.Run(name, func(t *testing.T) {
			g := launch(t)
			b, err := clientFor(t, g, brokerFor(t, g, rulesFor(g))).Resource(t.Context(), uri(t))
			if err != nil || string(b) != keyText {
				t.Fatalf("Resource = %v, %v", b, err)
			}
			for what, rules := range map[string]string{
				"wrong measurement": fmt.Sprintf("[[resource]]\npath = \"*/*/*\"\nmeasurement = [%q]\n", other),
				"wrong initdata":    fmt.Sprintf("[[resource]]\npath = \"*/*/*\"\ninitdata = [%q]\n", other),
				"wrong platform":    "[[resource]]\npath = \"*/*/*\"\ntee = [\"sample\"]\n",
				"no rule":           "[[resource]]\npath = \"other/*/*\"\n",
			} {
				if b, err := clientFor(t, g, brokerFor(t, g, rules)).Resource(t.Context(), uri(t)); !errors.Is(err, kbs.ErrDenied) {
					t.Errorf("%s: %v, %v", what, b, err)
				}
			}
			g.debug()
			if b, err := clientFor(t, g, brokerFor(t, g, rulesFor(g))).Resource(t.Context(), uri(t)); !errors.Is(err, kbs.ErrDenied) {
				t.Errorf("debug guest: %v, %v", b, err)
			}
			if _, err := clientFor(t, g, brokerFor(t, g, rulesFor(g)+"debug = true\n")).Resource(t.Context(), uri(t)); err != nil {
				t.Errorf("debug guest where that is allowed: %v", err)
			}
			g.trust = verify.Options{}
			if b, err := clientFor(t, g, brokerFor(t, g, rulesFor(g))).Resource(t.Context(), uri(t)); !errors.Is(err, kbs.ErrAttestation) {
				t.Errorf("a platform with a root of its own, judged by the vendor's: %v, %v", b, err)
			}
		})
	}
}

// TestEveryBitCounts sends the statement of a real handshake again with one
// bit changed. No change is accepted, and the statement as it was is.
func TestEveryBitCounts(t *testing.T) {
	for name, launch := range platforms {
		t.Run(name, func(t *testing.T) {
			g := launch(t)
			broker := brokerFor(t, g, rulesFor(g))
			statement, cookie := capture(t, clientFor(t, g, broker), broker)
			flips := common(otherStatement(t, g.collector))
			maps.Copy(flips, g.flips)
			var body map[string]any
			if err := json.Unmarshal(statement, &body); err != nil {
				t.Fatal(err)
			}
			for _, what := range slices.Sorted(maps.Keys(flips)) {
				seen := map[string]int{}
				for i, change := range flips[what] {
					change(body)
					changed, err := json.Marshal(body)
					if err != nil {
						t.Fatal(err)
					}
					change(body) // and back
					code, detail := attest(t, broker, changed, cookie)
					if code != http.StatusUnauthorized {
						t.Fatalf("%s: change %d is answered with %d", what, i, code)
					}
					seen[detail]++
				}
				wantReasons(t, what, seen)
			}
			same, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			if code, detail := attest(t, broker, same, cookie); code != http.StatusOK {
				t.Errorf("the statement as it was is answered with %d %s", code, detail)
			}
		})
	}
}

// otherStatement is as genuine as that of the handshake, and not for it.
func otherStatement(t *testing.T, c evidence.Collector) (parsed any) {
	t.Helper()
	rd, err := evidence.NewReportData([]byte("another"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.Collect(t.Context(), rd)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(e.Data, &parsed); err != nil {
		t.Fatal(err)
	}
	return parsed
}

// capture takes the statement of a handshake off the wire before it arrives.
func capture(t *testing.T, c *kbs.Client, broker *evidencetest.KBS) (statement []byte, cookie string) {
	t.Helper()
	broker.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/kbs/v0/attest" {
			return false
		}
		statement, _ = io.ReadAll(r.Body)
		cookie = r.Header.Get("Cookie")
		w.WriteHeader(http.StatusBadRequest)
		return true
	})
	if _, err := c.Resource(t.Context(), uri(t)); err == nil {
		t.Fatal("no error")
	}
	broker.Intercept(nil)
	return statement, cookie
}

// attest asks the broker without a connection in between, and returns what a
// refusal says.
func attest(t *testing.T, broker *evidencetest.KBS, body []byte, cookie string) (code int, detail string) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/kbs/v0/attest", bytes.NewReader(body))
	req.Header.Set("Cookie", cookie)
	answer := httptest.NewRecorder()
	broker.ServeHTTP(answer, req)
	var said struct{ Detail string }
	if err := json.Unmarshal(answer.Body.Bytes(), &said); err != nil {
		t.Fatal(err)
	}
	return answer.Code, strings.TrimPrefix(said.Detail, "Attestation error: ")
}
