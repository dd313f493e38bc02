package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

const hubFile = `
socket = "unix:///run/confidential-containers/cdh.sock"
skip_sealed_secret_verification = true

[aa]
aa_socket = "unix:///x"

[kbc]
name = "cc_kbc"
url = "http://kbs:8080"
kbs_cert = "CERT"

[[credentials]]
path = "/run/confidential-containers/cdh/kbs/a/b"
resource_uri = "kbs:///default/a/b"

[image]
max_concurrent_layer_downloads_per_image = 5
sigstore_config_uri = "kbs:///default/sigstore-config/test"
image_security_policy_uri = "kbs:///default/security-policy/test"
authenticated_registry_credentials_uri = "kbs:///default/credential/test"
extra_root_certificates = ["cert1", "cert2"]
work_dir = "/run/image-rs"

[image.registry_config]
unqualified-search-registries = ["docker.io", "example1.com"]

[[image.registry_config.registry]]
prefix = "example.com/foo"
insecure = false
blocked = true
location = "internal-registry-for-example.com/bar"

[[image.registry_config.registry.mirror]]
location = "example-mirror-0.local/mirror-for-foo"
insecure = true

[image.image_pull_proxy]
https_proxy = "http://127.0.0.1:8080"
no_proxy = "localhost"

[log]
level = "debug"
`

const agentFile = `
clock_floor = 2026-01-02T03:04:05Z
[token_configs]
[token_configs.coco_as]
url = "http://127.0.0.1:8000"
[token_configs.kbs]
url = "http://kbs:8080"
cert = "CERT"
tee_key_algorithm = "ECDH-ES+A256KW-P256"
[eventlog_config]
init_pcr = 16
enable_eventlog = true
[log]
level = "info"
`

func TestMerge(t *testing.T) {
	got, report, err := Merge(Default(), Initdata{AA: agentFile, CDH: hubFile})
	want := with(func(c *Config) {
		c.Attestation = Attestation{KBS: Endpoint{"http://kbs:8080", "CERT"}, KeyAlgorithm: "ECDH-ES+A256KW-P256",
			ASURL: "http://127.0.0.1:8000", EventLog: EventLog{Enable: true, PCR: 16}}
		c.ClockFloor = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		c.KBC = KBC{"cc_kbc", "http://kbs:8080", "CERT"}
		c.Credentials = []Credential{{"kbs:///default/a/b", "/run/confidential-containers/cdh/kbs/a/b"}}
		c.SkipSealedCheck = true
		c.Image = Image{
			WorkDir: "/run/image-rs", MaxLayers: 5,
			PolicyURI:      "kbs:///default/security-policy/test",
			SigstoreURI:    "kbs:///default/sigstore-config/test",
			CredentialsURI: "kbs:///default/credential/test",
			Registries: Registries{
				Search: []string{"docker.io", "example1.com"},
				Registry: []Registry{{"example.com/foo", "internal-registry-for-example.com/bar", false, true,
					[]Mirror{{"example-mirror-0.local/mirror-for-foo", true}}}},
			},
			Proxy:      Proxy{HTTPS: "http://127.0.0.1:8080", NoProxy: "localhost"},
			ExtraRoots: []string{"cert1", "cert2"},
		}
	})
	if err != nil || !reflect.DeepEqual(got, want) || len(report.Notes) != 0 {
		t.Errorf("got %+v %+v %v\nwant %+v", got, report, err, want)
	}
	if b := got.Broker(); b != (Endpoint{"http://kbs:8080", "CERT"}) {
		t.Errorf("broker is %+v", b)
	}
}

func TestMergeKeepsWhatTheImageSays(t *testing.T) {
	image := with(func(c *Config) { c.Image.PolicyURI = "kbs:///a/b/c"; c.KBC.URL = "http://k" })
	got, _, err := Merge(image, Initdata{CDH: "[image]\nwork_dir = \"/x\""})
	image.Image.WorkDir = "/x"
	if err != nil || !reflect.DeepEqual(got, image) {
		t.Errorf("got %+v %v", got, err)
	}
}

// Initdata may not reach what belongs to the image alone.
func TestMergeIsLimited(t *testing.T) {
	for _, line := range []string{
		"trust_cmdline = true", `tee = "sample"`, `attestation.tee = "sample"`, "debug_console = true",
		`policy_file = "/x"`, `server_addr = "unix:///x"`, "server_peer_cids = [3]",
		`token_configs.kbs.bad = 1`, "image = 5",
	} {
		for _, d := range []Initdata{{AA: line}, {CDH: line}} {
			got, report, err := Merge(Default(), d)
			if err != nil || !reflect.DeepEqual(got, Default()) || len(report.Notes) != 1 {
				t.Errorf("%+v: got %+v %+v %v", d, got, report, err)
			}
		}
	}
}

func TestMergeRefusesMalformed(t *testing.T) {
	for _, c := range []struct {
		d     Initdata
		fault string
	}{
		{Initdata{AA: "["}, "initdata: aa.toml: malformed TOML in line 1"},
		{Initdata{CDH: "[kbc]\nname = 1"}, "initdata: cdh.toml: kbc.name: not a text"},
		{Initdata{CDH: "[image]\nmax_concurrent_layer_downloads_per_image = 0"}, "out of bounds"},
		{Initdata{AA: "[token_configs.kbs]\nurl = \"kbs\""}, "token_configs.kbs.url: not an http"},
	} {
		got, _, err := Merge(Default(), c.d)
		if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), c.fault) || !reflect.DeepEqual(got, Config{}) {
			t.Errorf("%+v: got %v, want %q", c.d, err, c.fault)
		}
	}
}

func TestBroker(t *testing.T) {
	aa := Endpoint{"http://aa", "A"}
	for name, c := range map[string]struct {
		kbc              KBC
		broker, verifier Endpoint
	}{
		"only aa.toml":     {KBC{}, aa, Endpoint{}},
		"cdh.toml as well": {KBC{"cc_kbc", "http://cdh", "C"}, Endpoint{"http://cdh", "C"}, aa},
		"files":            {KBC{Name: OfflineKBC, URL: "http://cdh"}, Endpoint{}, Endpoint{}},
	} {
		cfg := with(func(cfg *Config) { cfg.Attestation.KBS, cfg.KBC = aa, c.kbc })
		if got := cfg.Broker(); got != c.broker {
			t.Errorf("%s: broker is %+v", name, got)
		}
		if got := cfg.Verifier(); got != c.verifier {
			t.Errorf("%s: verifier is %+v", name, got)
		}
	}
}

func TestDifferentBrokersAreNoted(t *testing.T) {
	_, report, err := Merge(Default(), Initdata{AA: "[token_configs.kbs]\nurl = \"http://a\"", CDH: "[kbc]\nurl = \"http://b\""})
	if err != nil || len(report.Notes) != 1 {
		t.Errorf("got %+v %v", report, err)
	}
}

// A text that is nested deep enough would keep the parser busy for seconds.
func TestDeepText(t *testing.T) {
	for name, text := range map[string]string{
		"arrays":      "a = " + strings.Repeat("[", 60_000),
		"tables":      "a = " + strings.Repeat("{a=", 40_000),
		"dotted keys": strings.Repeat("a.", 60_000) + "a = 1",
		"headers":     "[" + strings.Repeat("a.", 60_000) + "a]",
	} {
		t.Run(name, func(t *testing.T) {
			for _, d := range []Initdata{{AA: text}, {CDH: text}} {
				if _, _, err := Merge(Config{}, d); err == nil || !strings.Contains(err.Error(), "nested too deep") {
					t.Errorf("%v", err)
				}
			}
		})
	}
}

func FuzzMerge(f *testing.F) {
	f.Add(agentFile, hubFile)
	f.Add(everything, "[[image]]")
	f.Add("a.b.c = {}", "[image]\nregistry_config = []")
	f.Fuzz(func(t *testing.T, aa, cdh string) {
		if len(aa)+len(cdh) > 8<<10 {
			return
		}
		got, _, err := Merge(Default(), Initdata{AA: aa, CDH: cdh})
		if err == nil && (got.TrustCmdline || got.Attestation.TEE != "" || got.Console.Enabled) {
			t.Errorf("got %+v", got)
		}
	})
}

func FuzzFile(f *testing.F) {
	f.Add(everything)
	f.Add("[attestation]\n" + strings.ReplaceAll(agentFile, "[token", "[attestation.token") + hubFile)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 8<<10 {
			return
		}
		c := Default()
		if _, err := apply(&c, text, ownFile); err != nil && !reflect.DeepEqual(c, Default()) {
			t.Errorf("a refused file left %+v", c)
		}
	})
}

func FuzzCmdline(f *testing.F) {
	f.Add(hostileLine)
	f.Add("agent.hotplug_timeout=3 cgroup_no_v1=all agent.x agent.log=info")
	f.Fuzz(func(t *testing.T, line string) {
		l := loader{config: Default(), ignored: map[string]bool{}}
		if _, err := l.cmdline(line); err != nil {
			return
		}
		c := l.config
		if c.Console.Enabled || c.Server.Addr != Default().Server.Addr || c.KBC != (KBC{}) || c.Image.PolicyURI != "" {
			t.Errorf("got %+v", c)
		}
	})
}
