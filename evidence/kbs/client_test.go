package kbs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/kbs"
	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/tee"
)

var (
	ctx  = context.Background()
	name = resource.URI{Repository: "default", Type: "key", Tag: "1"}
)

const contents = "the contents"

func options() devkbs.Options {
	return devkbs.Options{
		AllowSample: true,
		Resources:   evidencetest.Resources(map[string]string{"default/key/1": contents}),
	}
}

func newClient(t testing.TB, c kbs.Config) *kbs.Client {
	t.Helper()
	if c.Collector == nil {
		c.Collector = tee.Sample()
	}
	if c.Backoff == 0 {
		c.Backoff = time.Millisecond
	}
	client, err := kbs.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func wantContents(t testing.TB, c *kbs.Client) {
	t.Helper()
	got, err := c.Resource(ctx, name)
	if err != nil || string(got) != contents {
		t.Fatalf("Resource = %d bytes, %v", len(got), err)
	}
}

func TestResource(t *testing.T) {
	for _, tls := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls %v", tls), func(t *testing.T) {
			k := evidencetest.NewKBS(t, options())
			if tls {
				k = evidencetest.NewTLSKBS(t, options())
			}
			var phases []string
			c := newClient(t, kbs.Config{URL: k.URL + "/", Cert: k.Cert, Observe: func(p string, d time.Duration) {
				phases = append(phases, p)
				if d <= 0 {
					t.Errorf("phase %s took %v", p, d)
				}
			}})
			wantContents(t, c)
			wantContents(t, c)
			if n := k.Count("attest"); n != 1 {
				t.Errorf("%d attestations, want 1", n)
			}
			if got := strings.Join(phases, " "); got != "challenge evidence verdict attest key key" {
				t.Errorf("phases: %s", got)
			}
		})
	}
}

func TestManyWaitersShareOneAttestation(t *testing.T) {
	k := evidencetest.NewKBS(t, options())
	hold, entered := make(chan struct{}), make(chan struct{})
	collector := &evidencetest.Collector{Inner: tee.Sample(), Hold: hold, Entered: func() { close(entered) }}
	c := newClient(t, kbs.Config{URL: k.URL, Collector: collector})
	early, cancel := context.WithCancel(ctx)
	leaver := make(chan error)
	go func() {
		_, err := c.Resource(early, name)
		leaver <- err
	}()
	<-entered // the one that leaves has begun the handshake
	var wait sync.WaitGroup
	errs := make(chan error, 100)
	for range 100 {
		wait.Go(func() {
			got, err := c.Resource(ctx, name)
			if err == nil && string(got) != contents {
				err = errors.New("other contents")
			}
			errs <- err
		})
	}
	cancel()
	if err := <-leaver; !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that leaves gets %v", err)
	}
	close(hold)
	wait.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	if collector.Calls() != 1 || k.Count("auth") != 1 || k.Count("attest") != 1 {
		t.Errorf("evidence %d, auth %d, attest %d, want one each", collector.Calls(), k.Count("auth"), k.Count("attest"))
	}
}

func TestExpiredSessionIsRenewedOnce(t *testing.T) {
	k := evidencetest.NewKBS(t, options())
	c := newClient(t, kbs.Config{URL: k.URL})
	wantContents(t, c)
	k.Broker.ExpireSessions()
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() { wantContents(t, c) })
	}
	wait.Wait()
	if n := k.Count("attest"); n != 2 {
		t.Errorf("%d attestations, want exactly one more", n)
	}

	k.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/resource/") {
			k.Broker.ExpireSessions()
		}
		return false
	})
	if _, err := c.Resource(ctx, name); !errors.Is(err, kbs.ErrSession) {
		t.Errorf("a broker that forgets at once: %v, want ErrSession", err)
	}
	if n := k.Count("attest"); n != 3 {
		t.Errorf("%d attestations, want exactly one more", n)
	}
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name     string
		options  func(*devkbs.Options)
		resource resource.URI
		want     error
		attests  int
	}{
		{"policy", func(o *devkbs.Options) { o.Refuse = true }, name, kbs.ErrDenied, 1},
		{"missing", func(*devkbs.Options) {}, resource.URI{Repository: "default", Type: "key", Tag: "none"}, kbs.ErrNotFound, 1},
		{"evidence", func(o *devkbs.Options) { o.AllowSample = false }, name, kbs.ErrAttestation, 3},
		{"malformed name", func(*devkbs.Options) {}, resource.URI{Repository: "..", Type: "key", Tag: "1"}, errdefs.ErrInvalidArgument, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := options()
			tt.options(&o)
			k := evidencetest.NewKBS(t, o)
			c := newClient(t, kbs.Config{URL: k.URL})
			if got, err := c.Resource(ctx, tt.resource); !errors.Is(err, tt.want) {
				t.Errorf("Resource = %d bytes, %v, want %v", len(got), err, tt.want)
			}
			if n := k.Count("attest"); n != tt.attests {
				t.Errorf("%d attestations, want %d", n, tt.attests)
			}
		})
	}
}

func TestRefusalCanBeLifted(t *testing.T) {
	k := evidencetest.NewKBS(t, options())
	c := newClient(t, kbs.Config{URL: k.URL})
	k.Broker.SetRefuse(true)
	if _, err := c.Resource(ctx, name); !errdefs.IsPermissionDenied(err) {
		t.Errorf("refusing broker: %v", err)
	}
	k.Broker.SetRefuse(false)
	wantContents(t, c)
}

func TestEvidenceThatLies(t *testing.T) {
	k := evidencetest.NewKBS(t, options())
	c := newClient(t, kbs.Config{URL: k.URL, Collector: &evidencetest.Collector{
		Inner:   tee.Sample(),
		Corrupt: func(json.RawMessage) json.RawMessage { return json.RawMessage(`{"svn":"1","report_data":"AAAA"}`) },
	}})
	if _, err := c.Resource(ctx, name); !errors.Is(err, kbs.ErrAttestation) {
		t.Errorf("Resource: %v, want ErrAttestation", err)
	}
}

func TestCollectorFails(t *testing.T) {
	k := evidencetest.NewKBS(t, options())
	collector := &evidencetest.Collector{Inner: tee.Sample(), Err: errdefs.ErrNotImplemented}
	c := newClient(t, kbs.Config{URL: k.URL, Collector: collector})
	if _, err := c.Resource(ctx, name); !errdefs.IsNotImplemented(err) || collector.Calls() != 1 {
		t.Errorf("Resource: %v after %d calls", err, collector.Calls())
	}
	if k.Count("attest") != 0 {
		t.Error("something was sent as evidence")
	}
}

// rewrite changes the body of a request before the broker sees it.
func rewrite(verb string, change func(string) string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, verb) {
			return false
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return false
		}
		r.Body = io.NopCloser(strings.NewReader(change(string(body))))
		return false
	}
}

func TestDevelopmentBrokerIsRefusedOnRealPlatform(t *testing.T) {
	k := evidencetest.NewKBS(t, options())
	k.Intercept(rewrite("/auth", func(s string) string { return strings.Replace(s, `"tdx"`, `"sample"`, 1) }))
	c := newClient(t, kbs.Config{URL: k.URL, Collector: &evidencetest.Collector{Inner: tee.Sample(), As: evidence.TDX}})
	if _, err := c.Resource(ctx, name); !errors.Is(err, kbs.ErrIssuer) {
		t.Errorf("Resource: %v, want ErrIssuer", err)
	}
	if k.Count("resource") != 0 {
		t.Error("a resource was fetched")
	}
}

func TestInitDataIsSent(t *testing.T) {
	text := "version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n\"a\" = '<&>'\n"
	k := evidencetest.NewKBS(t, options())
	var sent string
	k.Intercept(rewrite("/attest", func(s string) string {
		var body struct {
			InitData struct{ Format, Body string } `json:"init-data"`
		}
		if json.Unmarshal([]byte(s), &body) == nil {
			sent = body.InitData.Format + " " + body.InitData.Body
		}
		return s
	}))
	wantContents(t, newClient(t, kbs.Config{URL: k.URL, InitData: []byte(text)}))
	if sent != "toml "+text {
		t.Errorf("sent init-data %q", sent)
	}
	bad := newClient(t, kbs.Config{URL: k.URL, InitData: []byte("not toml =")})
	if _, err := bad.Resource(ctx, name); !errors.Is(err, kbs.ErrAttestation) {
		t.Errorf("malformed init-data: %v", err)
	}
}

func TestTamperedHandshake(t *testing.T) {
	tests := []struct {
		name   string
		change map[string]any
	}{
		{"wrong nonce", map[string]any{"nonce": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}},
		{"wrong key", map[string]any{"tee-pubkey": map[string]string{
			"alg": "ECDH-ES+A256KW", "crv": "P-256", "kty": "EC",
			"x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
			"y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
		}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := evidencetest.NewKBS(t, options())
			k.Intercept(rewrite("/attest", func(s string) string {
				var body map[string]map[string]any
				if err := json.Unmarshal([]byte(s), &body); err != nil {
					t.Error(err)
				}
				maps.Copy(body["runtime-data"], tt.change)
				out, _ := json.Marshal(body)
				return string(out)
			}))
			if _, err := newClient(t, kbs.Config{URL: k.URL}).Resource(ctx, name); !errors.Is(err, kbs.ErrAttestation) {
				t.Errorf("Resource: %v, want ErrAttestation", err)
			}
		})
	}
}

func TestResourceForAnotherKey(t *testing.T) {
	k := evidencetest.NewKBS(t, options())
	victim, thief := newClient(t, kbs.Config{URL: k.URL}), newClient(t, kbs.Config{URL: k.URL})
	var cookie string
	k.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/resource/") {
			cookie = r.Header.Get("Cookie")
		}
		return false
	})
	wantContents(t, victim)
	k.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/resource/") {
			r.Header.Set("Cookie", cookie)
		}
		return false
	})
	if got, err := thief.Resource(ctx, name); !errors.Is(err, kbs.ErrReply) {
		t.Errorf("another guest's session gives %d bytes, %v", len(got), err)
	}
}

func TestNewRefuses(t *testing.T) {
	tests := []struct {
		name   string
		config kbs.Config
		class  func(error) bool
	}{
		{"no collector", kbs.Config{URL: "http://k"}, errdefs.IsInvalidArgument},
		{"no url", kbs.Config{Collector: tee.Sample()}, errdefs.IsInvalidArgument},
		{"other scheme", kbs.Config{Collector: tee.Sample(), URL: "file:///etc"}, errdefs.IsInvalidArgument},
		{"password in url", kbs.Config{Collector: tee.Sample(), URL: "http://u:p@k"}, errdefs.IsInvalidArgument},
		{"query in url", kbs.Config{Collector: tee.Sample(), URL: "http://k?x=1"}, errdefs.IsInvalidArgument},
		{"no certificate", kbs.Config{Collector: tee.Sample(), URL: "https://k", Cert: "x"}, errdefs.IsInvalidArgument},
		{"other key", kbs.Config{Collector: tee.Sample(), URL: "https://k", KeyAlgorithm: "RSA1_5"}, errdefs.IsInvalidArgument},
		{"nothing to pin", kbs.Config{Collector: tee.Sample(), URL: "https://k", Pin: true}, errdefs.IsInvalidArgument},
		{"malformed proxy", kbs.Config{Collector: tee.Sample(), URL: "https://k", Proxy: kbs.Proxy{HTTPS: "http://:3128"}}, errdefs.IsInvalidArgument},
		{"malformed verifier", kbs.Config{Collector: tee.Sample(), URL: "https://k", AttestURL: "k"}, errdefs.IsInvalidArgument},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := kbs.New(tt.config); !tt.class(err) {
				t.Errorf("New: %v", err)
			}
		})
	}
	if _, err := kbs.New(kbs.Config{Collector: tee.Sample(), URL: "https://k", Cert: " \n", KeyAlgorithm: "ECDH-ES+A256KW-P256"}); err != nil {
		t.Errorf("New with an empty certificate: %v", err)
	}
}
