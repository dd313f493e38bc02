package config

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// write puts a file of the guest image into a temporary directory.
func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func absent(t testing.TB) string { return filepath.Join(t.TempDir(), "absent") }

func with(edit func(*Config)) Config {
	c := Default()
	edit(&c)
	return c
}

func TestDefaultsAlone(t *testing.T) {
	got, report, err := Load(Sources{File: absent(t)})
	if err != nil || !reflect.DeepEqual(got, Default()) || !reflect.DeepEqual(report, Report{}) {
		t.Errorf("got %+v %+v %v", got, report, err)
	}
}

func TestCmdlineOfTrustingImage(t *testing.T) {
	for _, c := range []struct {
		line string
		want func(*Config)
	}{
		{"", func(*Config) {}},
		{"foo debug_console agent bar=1 panic=1 rootflags=data=ordered", func(*Config) {}},
		{"agent.log=debug", func(c *Config) { c.Log.Level = slog.LevelDebug }},
		{"agent.log=error\nagent.log=trace", func(c *Config) { c.Log.Level = slog.LevelDebug - 4 }},
		{"agent.log=panic", func(c *Config) { c.Log.Level = slog.LevelError + 4 }},
		{"agent.debug_console agent.debug_console_vport=1026", func(c *Config) { c.Console = Console{true, 1026} }},
		{"agent.debug_console=true agent.debug_consolex", func(*Config) {}},
		{"agent.devmode", func(c *Config) { c.DevMode = true }},
		{"agent.trace", func(c *Config) { c.Trace = true }},
		{"agent.trace=1", func(c *Config) { c.Trace = true }},
		{"agent.trace agent.trace=no", func(*Config) {}},
		{"agent.server_addr=unix://@x=y", func(c *Config) { c.Server.Addr = "unix://@x=y" }},
		{"agent.passfd_listener_port=1027 agent.log_vport=1025", func(c *Config) { c.Server.PassFDPort, c.Log.VPort = 1027, 1025 }},
		{"agent.log_vport=0 agent.debug_console_vport=-1", func(*Config) {}},
		{"agent.hotplug_timeout=10 agent.cdh_api_timeout=1 agent.image_pull_timeout=2 agent.cdi_timeout=3 agent.launch_process_timeout=4",
			func(c *Config) {
				c.Timeouts = Timeouts{10 * time.Second, time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second}
			}},
		{"agent.hotplug_timeout=0 agent.cdh_api_timeout=99999999", func(*Config) {}},
		{"agent.container_pipe_size=8192", func(c *Config) { c.Container.PipeSize = 8192 }},
		{"agent.visible_cdi_devices=true", func(c *Config) { c.Container.VisibleCDIDevices = true }},
		{"systemd.unified_cgroup_hierarchy=1", func(c *Config) { c.Cgroup.Unified = true }},
		{"cgroup_no_v1=all", func(c *Config) { c.Cgroup.Unified = true }},
		{"cgroup_no_v1=memory", func(*Config) {}},
		{"agent.secure_storage_integrity=false", func(c *Config) { c.Storage.Integrity = false }},
		{"agent.guest_components_procs=none agent.guest_components_rest_api=all", func(c *Config) { c.Workload = Workload{"none", "all"} }},
		{"agent.mem_agent_memcg_swap=true agent.mem_agent_enable=1 agent.mem_agent_compact_order=3", func(c *Config) {
			c.MemAgent.Enable, c.MemAgent.Memcg.Swap, c.MemAgent.Compact.Order = true, true, 3
		}},
		{"agent.aa_kbc_params=cc_kbc::https://kbs:8080", func(c *Config) { c.KBC = KBC{Name: "cc_kbc", URL: "https://kbs:8080"} }},
		{"agent.aa_kbc_params=offline_fs_kbc::null", func(c *Config) { c.KBC = KBC{Name: OfflineKBC} }},
		{"agent.https_proxy=http://p:1 agent.http_proxy=http://p:2 agent.no_proxy=localhost", func(c *Config) {
			c.Image.Proxy = Proxy{HTTPS: "http://p:1", HTTP: "http://p:2", NoProxy: "localhost"}
		}},
		{"agent.image_registry_auth=file:///etc/auth.json", func(c *Config) { c.Image.CredentialsURI = "file:///etc/auth.json" }},
		{"agent.image_policy_file=kbs:///default/policy/1 agent.enable_signature_verification=true", func(c *Config) { c.Image.PolicyURI = "kbs:///default/policy/1" }},
		{"agent.image_policy_file=kbs:///default/policy/1", func(*Config) {}},
	} {
		got, report, err := Load(Sources{File: write(t, "trust_cmdline = true"), Cmdline: c.line})
		want := with(c.want)
		want.TrustCmdline = true
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v %v, want %+v", c.line, got, err, want)
		}
		if report.Ignored != 0 || !report.CmdlineTrusted {
			t.Errorf("%q: got %+v", c.line, report)
		}
	}
}

// What follows is everything by which a host could weaken the guest or turn it
// to other servers. A word that is missing here, or in the table of keys, is a
// hole: the list is the one of the threat model.
const hostileLine = "agent.config_file=/run/evil.toml agent.debug_console agent.debug_console_vport=1026 " +
	"agent.log=debug agent.log_vport=1025 agent.trace=true agent.devmode agent.server_addr=unix:///run/x " +
	"agent.passfd_listener_port=1027 agent.guest_components_procs=none agent.guest_components_rest_api=all " +
	"agent.aa_kbc_params=cc_kbc::http://evil agent.image_registry_auth=file:///etc/shadow " +
	"agent.image_policy_file=file:///etc/open.json agent.enable_signature_verification=false " +
	"agent.https_proxy=http://evil:1 agent.http_proxy=http://evil:2 agent.no_proxy=x " +
	"agent.secure_storage_integrity=false agent.visible_cdi_devices=true agent.mem_agent_memcg_swap=true"

func TestHostCannotWeaken(t *testing.T) {
	env := []string{"KATA_AGENT_SERVER_ADDR=unix:///x", "KATA_AGENT_LOG_LEVEL=trace", "KATA_AGENT_TRACING=1", "KATA_AGENT_POLICY_FILE=/run/x"}
	present := func() bool { return true }
	for name, s := range map[string]Sources{
		"no file":              {File: absent(t)},
		"no file, no TEE":      {File: absent(t), TEEPresent: func() bool { return false }},
		"plain file":           {File: write(t, "")},
		"sample, TEE present":  {File: write(t, `attestation.tee = "sample"`), TEEPresent: present},
		"sample, TEE unknown":  {File: write(t, `attestation.tee = "sample"`)},
		"no sample and no TEE": {File: write(t, `attestation.tee = "tdx"`), TEEPresent: func() bool { return false }},
		"explicit file":        {Args: []string{"--config", write(t, "")}},
	} {
		t.Run(name, func(t *testing.T) {
			s.Cmdline, s.Env = hostileLine+" "+hostileLine, env
			got, report, err := Load(s)
			if err != nil {
				t.Fatal(err)
			}
			got.Attestation.TEE = ""
			if !reflect.DeepEqual(got, Default()) || report.CmdlineTrusted {
				t.Errorf("got %+v %+v", got, report)
			}
			// Log level, server address and trace have a word and a variable.
			want := len(strings.Fields(hostileLine)) + len(env) - 3
			if s.Args != nil {
				want = len(env) // the command line is not read at all
			}
			if report.Ignored != want || len(report.Notes) != want {
				t.Errorf("got %d ignored and %d notes, want %d once each", report.Ignored, len(report.Notes), want)
			}
		})
	}
}

// Every key that is not plainly for the host must be in hostileLine.
func TestHostileLineIsComplete(t *testing.T) {
	words := map[string]bool{}
	for word := range strings.FieldsSeq(hostileLine) {
		name, _, _ := strings.Cut(word, "=")
		words[name] = true
	}
	for _, k := range Keys() {
		if k.Cmdline != "" && k.Trust != Host && !words[k.Cmdline] {
			t.Errorf("%s is guarded but not tried", k.Cmdline)
		}
		if k.Trust == Measured && (k.Cmdline != "" || k.Env != "") {
			t.Errorf("%s is for the image alone but has a spelling for the host", k.name())
		}
	}
}

func TestSampleWithoutTEETrustsTheHost(t *testing.T) {
	got, report, err := Load(Sources{
		File: write(t, `attestation.tee = "sample"`), Cmdline: "agent.log=debug agent.debug_console",
		TEEPresent: func() bool { return false },
	})
	if err != nil || !report.CmdlineTrusted || !got.Console.Enabled || got.Log.Level != slog.LevelDebug {
		t.Errorf("got %+v %+v %v", got, report, err)
	}
}

func TestQuietLogLevelsAreTheHosts(t *testing.T) {
	got, report, err := Load(Sources{File: absent(t), Cmdline: "agent.log=error"})
	if err != nil || report.Ignored != 0 || got.Log.Level != slog.LevelError {
		t.Errorf("got %v %+v %v", got.Log, report, err)
	}
}

func TestPrecedence(t *testing.T) {
	trusting := "trust_cmdline = true\n"
	other := write(t, `log_level = "warn"`)
	for _, c := range []struct {
		name string
		s    Sources
		want slog.Level
		file string // base name of the file that was read
	}{
		{"command line", Sources{File: write(t, trusting), Cmdline: "agent.log=error"}, slog.LevelError, "agent.toml"},
		{"environment over it", Sources{File: write(t, trusting), Cmdline: "agent.log=error", Env: []string{"KATA_AGENT_LOG_LEVEL=debug"}}, slog.LevelDebug, "agent.toml"},
		{"file over both", Sources{File: write(t, trusting+`log_level = "info"`), Cmdline: "agent.log=error", Env: []string{"KATA_AGENT_LOG_LEVEL=debug"}}, slog.LevelInfo, "agent.toml"},
		{"unknown level in the environment", Sources{File: write(t, trusting), Env: []string{"KATA_AGENT_LOG_LEVEL=loud"}}, slog.LevelInfo, "agent.toml"},
		{"--config replaces the command line", Sources{Args: []string{"--config", write(t, trusting)}, Cmdline: "agent.log=error"}, slog.LevelInfo, "agent.toml"},
		{"environment over --config", Sources{Args: []string{"x", "-c", write(t, trusting+`log_level = "info"`)}, Env: []string{"KATA_AGENT_LOG_LEVEL=debug"}}, slog.LevelDebug, "agent.toml"},
		{"--config=", Sources{Args: []string{"--config=" + other}}, slog.LevelWarn, "agent.toml"},
		{"config_file replaces all", Sources{File: write(t, trusting+`log_level = "error"`), Cmdline: "agent.log=error agent.config_file=" + other + " agent.log=error",
			Env: []string{"KATA_AGENT_LOG_LEVEL=debug"}}, slog.LevelWarn, "agent.toml"},
	} {
		got, report, err := Load(c.s)
		if err != nil || got.Log.Level != c.want || filepath.Base(report.File) != c.file {
			t.Errorf("%s: got %v %+v %v, want %v", c.name, got.Log.Level, report, err, c.want)
		}
	}
}

const everything = `
trust_cmdline = false
server_addr = "vsock://-1:2024"
server_peer_cids = [1, 2]
log_level = "debug"
hotplug_timeout = 7
debug_console = true
hotplug_timeout_x = 1
`

func TestFile(t *testing.T) {
	for _, c := range []struct {
		name, text, fault string
		want              func(*Config)
	}{
		{"empty", "", "", func(*Config) {}},
		{"seconds", "hotplug_timeout = 7", "", func(c *Config) { c.Timeouts.Hotplug = 7 * time.Second }},
		{"secs and nanos", "hotplug_timeout = { secs = 7, nanos = 5 }", "", func(c *Config) { c.Timeouts.Hotplug = 7*time.Second + 5 }},
		{"peers", "server_peer_cids = [1, 2]", "", func(c *Config) { c.Server.PeerCIDs = []uint32{1, 2} }},
		{"policy", `policy_file = "/etc/p.rego"`, "", func(c *Config) { c.Policy.File = "/etc/p.rego" }},
		{"broker", "[attestation]\ntee = \"tdx\"\n[attestation.token_configs.kbs]\nurl = \"https://k\"\ncert = \"C\"\n[attestation.eventlog_config]\nenable_eventlog = true", "", func(c *Config) {
			c.Attestation.TEE, c.Attestation.KBS, c.Attestation.EventLog.Enable = "tdx", Endpoint{"https://k", "C"}, true
		}},
		{"key of a TPM", "[attestation]\ntpm_device = \"/dev/tpm7\"\ntpm_ak_handle = 0x81010077", "", func(c *Config) { c.Attestation.TPM = TPM{"/dev/tpm7", 0x81010077} }},
		{"TPM that is no path", "[attestation]\ntpm_device = \"tpm7\"", "attestation.tpm_device: not an absolute path", nil},
		{"handle that is none", "[attestation]\ntpm_ak_handle = 0x82000000", "attestation.tpm_ak_handle: ", nil},
		{"old spellings", "image_registry_auth = \"file:///run/peerpod/auth.json\"\nenable_signature_verification = false\naa_kbc_params = \"cc_kbc::http://k\"", "", func(c *Config) {
			c.Image.CredentialsURI, c.KBC = "file:///run/peerpod/auth.json", KBC{Name: "cc_kbc", URL: "http://k"}
		}},
		{"floor of the clock", "clock_floor = 2026-01-02T03:04:05Z", "", func(c *Config) { c.ClockFloor = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }},
		{"floor as text", "clock_floor = \"2026-01-02T03:04:05Z\"", "", func(c *Config) { c.ClockFloor = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }},
		{"floor that is no time", "clock_floor = 7", "clock_floor: not a time", nil},
		{"floor that is no time as text", "clock_floor = \"yesterday\"", "clock_floor: not a time", nil},
		{"unknown key", everything, `unknown key "hotplug_timeout_x"`, nil},
		{"unknown table", "[policies]\nx = 1", `unknown key "policies"`, nil},
		{"unknown key in a table", "[image]\nwork_dirs = \"/x\"", `unknown key "image.work_dirs"`, nil},
		{"unknown key in a list", "[[image.registry_config.registry]]\nprefix = \"x\"\nblokced = true", `unknown key "image.registry_config.registry.blokced"`, nil},
		{"other case", "Log_Level = \"info\"", `unknown key "Log_Level"`, nil},
		{"table that is a number", "image = 5", `unknown key "image"`, nil},
		{"table that is a list", "[[image]]\nwork_dir = \"/x\"", `unknown key "image"`, nil},
		{"malformed", "= 1", "malformed TOML in line 1", nil},
		{"type", "debug_console = 1", "debug_console: neither true nor false", nil},
		{"type of a number", "debug_console_vport = \"1\"", "debug_console_vport: not a number", nil},
		{"bounds", "debug_console_vport = -1", "debug_console_vport: out of bounds 0 to", nil},
		{"bounds of a timeout", "cdi_timeout = 0", "cdi_timeout: out of bounds", nil},
		{"odd timeout", "cdi_timeout = { secs = 1, minutes = 1 }", "cdi_timeout: not a table", nil},
		{"level", "log_level = \"loud\"", "log_level: no log level", nil},
		{"choice", "guest_components_procs = \"all\"", "guest_components_procs: none of", nil},
		{"address", "server_addr = \"tcp://0.0.0.0:1\"", "server_addr: neither", nil},
		{"path", "policy_file = \"p.rego\"", "policy_file: not an absolute path", nil},
		{"tee", "attestation.tee = \"Sample!\"", "attestation.tee: no name", nil},
		{"peers out of range", "server_peer_cids = [4294967295]", "server_peer_cids", nil},
		{"URL", "[kbc]\nurl = \"ftp://x\"", "kbc.url: not an http", nil},
		{"source", "[image]\nimage_security_policy_uri = \"http://x\"", "image.image_security_policy_uri: neither", nil},
		{"file outside", "[[credentials]]\nresource_uri = \"kbs:///a/b/c\"\npath = \"/run/confidential-containers/cdh/kbs/../x\"", "credentials: entry 1: not a path below", nil},
		{"mirror without location", "[[image.registry_config.registry]]\nprefix = \"x\"\n[[image.registry_config.registry.mirror]]\ninsecure = true", "registry 1: mirror needs", nil},
		{"config_file in a file", "config_file = \"/x\"", "unknown key", nil},
		{"large", "# " + strings.Repeat("x", maxFile), "larger than", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _, err := Load(Sources{File: write(t, c.text)})
			if c.fault == "" {
				if want := with(c.want); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("got %+v %v, want %+v", got, err, want)
				}
				return
			}
			if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("got %v, want %q", err, c.fault)
			}
		})
	}
}

func TestMalformedCmdline(t *testing.T) {
	for _, c := range []struct{ line, fault string }{
		{"agent.hotplug_timeout=", "agent.hotplug_timeout: not a number"},
		{"agent.hotplug_timeout=-1", "agent.hotplug_timeout: not a number"},
		{"agent.hotplug_timeout=1=2", "agent.hotplug_timeout: not a number"},
		{"agent.container_pipe_size=x", "agent.container_pipe_size: not a number"},
		{"agent.log=verbose", "agent.log: no log level"},
		{"agent.server_addr=", "agent.server_addr: empty"},
		{"agent.mem_agent_compact_disable=1", "agent.mem_agent_compact_disable: neither"},
		{"agent.guest_components_procs=", "agent.guest_components_procs: empty"},
		{"agent.aa_kbc_params=x", "agent.aa_kbc_params: not of the form"},
		{"agent.aa_kbc_params=a::b::c", "agent.aa_kbc_params: not of the form"},
		{"agent.aa_kbc_params=eaa_kbc::http://x", "agent.aa_kbc_params: none of"},
		{"agent.https_proxy=:", "agent.https_proxy: not an http"},
		{"agent.config_file=/nowhere/at/all", "no such file"},
	} {
		_, _, err := Load(Sources{File: write(t, "trust_cmdline = true"), Cmdline: "kernel words " + c.line})
		if err == nil || !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%q: got %v, want %q", c.line, err, c.fault)
		}
	}
}

func TestArguments(t *testing.T) {
	if _, _, err := Load(Sources{Args: []string{"--config"}}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("got %v", err)
	}
	if _, _, err := Load(Sources{Args: []string{"--config", absent(t)}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestNotesAreBounded(t *testing.T) {
	line := strings.Repeat("agent."+strings.Repeat("x", 100)+" ", 1000)
	_, report, err := Load(Sources{File: absent(t), Cmdline: line})
	if err != nil || len(report.Notes) != maxNotes || len(report.Notes[0].Key) != maxKeyName {
		t.Errorf("got %d notes, %v", len(report.Notes), err)
	}
}

func TestWorkload(t *testing.T) {
	for _, c := range []struct {
		w                        Workload
		open, resources, evident bool
	}{
		{Default().Workload, false, false, false},
		{Workload{"api-server-rest", "all"}, true, true, true},
		{Workload{"api-server-rest", "attestation"}, true, false, true},
		{Workload{"confidential-data-hub", "all"}, false, false, false},
		{Workload{"none", "all"}, false, false, false},
		{Workload{}, false, false, false},
	} {
		if c.w.Open() != c.open || c.w.Resources() != c.resources || c.w.Evidence() != c.evident {
			t.Errorf("%+v: got %v %v %v", c.w, c.w.Open(), c.w.Resources(), c.w.Evidence())
		}
	}
}

func TestLogOfReport(t *testing.T) {
	var out strings.Builder
	old := slog.Default()
	t.Cleanup(func() { slog.SetDefault(old) })
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
	_, report, err := Load(Sources{File: absent(t), Cmdline: "agent.aa_kbc_params=cc_kbc::http://secret agent.aa_kbc_params=cc_kbc::http://secret"})
	if err != nil {
		t.Fatal(err)
	}
	report.Log(context.Background())
	if n := strings.Count(out.String(), "agent.aa_kbc_params"); n != 1 || strings.Contains(out.String(), "secret") {
		t.Errorf("got %s", out.String())
	}
}

func TestKeysAreUnique(t *testing.T) {
	for _, spelling := range []func(Key) string{ownFile, aaFile, cdhFile, func(k Key) string { return k.Cmdline }, func(k Key) string { return k.Env }} {
		var seen []string
		for _, k := range Keys() {
			if s := spelling(k); s != "" && slices.Contains(seen, s) {
				t.Errorf("%s stands twice in the table", s)
			} else {
				seen = append(seen, s)
			}
			if k.value == nil || k.Doc == "" {
				t.Errorf("%s has no value or no text", k.name())
			}
		}
	}
}
