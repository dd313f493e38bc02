// Package config finds the settings of the agent: on the kernel command line,
// in the environment, in the file of the guest image and in initdata. Nothing
// else in the program reads those. Each key carries a mark that says whom it
// is accepted from, because the host writes the command line.
package config

import (
	"log/slog"
	"math"
	"time"
)

// ImagePath is where the image keeps its own file, unless --config names
// another one. What it says counts as far as the launch measurement covers it.
const ImagePath = "/etc/coffer/agent.toml"

// Config holds every setting. It is plain data: constructors get their part of
// it by value, and nobody changes it after boot.
type Config struct {
	// TrustCmdline makes the command line count as much as the image's file.
	TrustCmdline bool

	Server      Server
	Log         Log
	Console     Console
	Timeouts    Timeouts
	Container   Container
	Cgroup      Cgroup
	Workload    Workload
	Storage     Storage
	Policy      Policy
	MemAgent    MemAgent
	Attestation Attestation
	KBC         KBC
	Image       Image
	Credentials []Credential

	// PauseBundle is the bundle that stands in for the pause image.
	PauseBundle string

	// SkipSealedCheck accepts sealed secrets without looking at the signature.
	SkipSealedCheck bool

	// ClockFloor is a time that has passed for sure; the zero time says nothing.
	ClockFloor time.Time

	Trace   bool
	DevMode bool // known for its name; it does nothing, as in the reference agent

	// The image policy of the command line counts only together with a switch.
	hostImagePolicy string
	hostImageVerify bool
}

// Server says where the host reaches the agent.
type Server struct {
	Addr       string
	PeerCIDs   []uint32 // who may connect by vsock; empty means the host alone
	PassFDPort uint32   // 0 is off
}

// Log says what is logged, and to whom.
type Log struct {
	Level slog.Level
	VPort uint32 // vsock port; 0 is standard output
}

// Console is the debug console, a root shell beside every policy.
type Console struct {
	Enabled bool
	VPort   uint32 // 0 is the serial console
}

// Timeouts bound waits for what others do.
type Timeouts struct {
	Hotplug   time.Duration // a device to appear; 0 leaves it to the caller's deadline
	Secret    time.Duration // a secret or a secure mount
	ImagePull time.Duration
	CDI       time.Duration // a CDI description to appear
	Launch    time.Duration // a guest component to come up
}

// Container holds what applies to every container.
type Container struct {
	PipeSize          int  // of standard output and error; 0 is the kernel's choice
	VisibleCDIDevices bool // honour VISIBLE_CDI_DEVICES of the container
}

// Cgroup chooses the hierarchy that a bare guest mounts.
type Cgroup struct {
	Unified bool
}

// Workload is what the containers may ask the guest for over HTTP. The two
// words are those of the reference guest.
type Workload struct {
	Procs string
	API   string
}

// Open reports whether the HTTP API is served at all.
func (w Workload) Open() bool { return w.Procs == "api-server-rest" }

// Resources reports whether containers may fetch resources of the key broker.
func (w Workload) Resources() bool { return w.Open() && (w.API == "resource" || w.API == "all") }

// Evidence reports whether containers may fetch evidence and tokens.
func (w Workload) Evidence() bool { return w.Open() && (w.API == "attestation" || w.API == "all") }

// Storage holds what applies to encrypted scratch space.
type Storage struct {
	Integrity bool
}

// Policy says where the first policy comes from.
type Policy struct {
	File string
}

// MemAgent tunes the reclaim of guest memory.
type MemAgent struct {
	Enable  bool
	Memcg   Memcg
	Compact Compact
}

// Memcg is the part that ages the pages of cgroups.
type Memcg struct {
	Disable            bool
	Swap               bool
	SwappinessMax      uint8
	PeriodSecs         uint64
	PeriodPSIPercent   uint8
	EvictionPSIPercent uint8
	EvictionAgingMin   uint64
}

// Compact is the part that makes free memory contiguous.
type Compact struct {
	Disable          bool
	PeriodSecs       uint64
	PeriodPSIPercent uint8
	PSIPercent       uint8
	SecMax           int64
	Order            uint8
	Threshold        uint64 // 0 is twice the size of Order
	ForceTimes       uint64
}

// SampleTEE is the value of Attestation.TEE that asks for evidence which
// proves nothing. No other setting leads there.
const SampleTEE = "sample"

// Attestation says how the guest proves what it is. TEE and AllowUnbound come
// from the image alone; the rest is spelled as in aa.toml.
type Attestation struct {
	TEE          string // "" finds the platform; "sample" only on explicit wish
	AllowUnbound bool   // accept initdata that no hardware vouches for
	KBS          Endpoint
	PinCert      bool     // trust the certificates of brokers alone, not those of the system
	KeyAlgorithm string   // of the key that wraps what the broker sends
	Proxy        Proxy    // the way to brokers
	ASURL        string   // attestation service, for its tokens
	Devices      []string // that make statements beside the platform: KIND, or KIND=SOCKET of a helper
	EventLog     EventLog
	TPM          TPM
}

// TPM says where the attestation key of a TPM is. Zeros are the usual places.
type TPM struct {
	Device   string
	AKHandle uint32
}

// Endpoint is a server and the certificates to trust for it, as PEM.
type Endpoint struct {
	URL  string
	Cert string
}

// EventLog is the record of what happens at run time.
type EventLog struct {
	Enable bool
	PCR    uint32
}

// KBC is how cdh.toml spells the key broker.
type KBC struct {
	Name string // cc_kbc or offline_fs_kbc
	URL  string
	Cert string
}

// OfflineKBC is the name of the broker that reads files of the image.
const OfflineKBC = "offline_fs_kbc"

// Broker returns where keys and secrets come from: what cdh.toml says, else
// what aa.toml says. An empty URL means that there is no remote broker.
func (c Config) Broker() Endpoint {
	switch {
	case c.KBC.Name == OfflineKBC:
		return Endpoint{}
	case c.KBC.URL != "":
		return Endpoint{URL: c.KBC.URL, Cert: c.KBC.Cert}
	}
	return c.Attestation.KBS
}

// Verifier returns the broker that attests, where it is another than the one
// that Broker returns: then a token of the one is shown to the other.
func (c Config) Verifier() Endpoint {
	if c.KBC.Name == OfflineKBC || c.KBC.URL == "" {
		return Endpoint{}
	}
	return c.Attestation.KBS
}

// Image says how images are pulled. Where a URI and a text exist for one thing,
// the URI counts and the text only without it; the table of registries however
// counts before its URI. So it is in the reference guest.
type Image struct {
	WorkDir        string
	MaxLayers      int // fetched at the same time, per image
	PolicyURI      string
	Policy         string // policy.json
	SigstoreURI    string
	Sigstore       string
	CredentialsURI string
	RegistriesURI  string
	Registries     Registries
	Proxy          Proxy
	ExtraRoots     []string // PEM
}

// Proxy is used to reach registries or brokers.
type Proxy struct {
	HTTPS   string
	HTTP    string
	NoProxy string
}

// Registries is the part of registries.conf that the reference guest knows.
type Registries struct {
	Search   []string
	Registry []Registry
}

// Registry rewrites, blocks or mirrors what begins with Prefix.
type Registry struct {
	Prefix   string
	Location string
	Insecure bool
	Blocked  bool
	Mirrors  []Mirror
}

// Mirror is tried before the registry itself.
type Mirror struct {
	Location string
	Insecure bool
}

// Credential is a resource that is written to a file at boot.
type Credential struct {
	URI  string
	Path string
}

// Default returns the settings of a guest that nobody configured.
func Default() Config {
	return Config{
		Server: Server{Addr: "vsock://-1:1024"},
		Timeouts: Timeouts{
			Secret:    50 * time.Second,
			ImagePull: 1200 * time.Second,
			CDI:       100 * time.Second,
			Launch:    6 * time.Second,
		},
		Workload:    Workload{Procs: "none", API: "resource"},
		Storage:     Storage{Integrity: true},
		PauseBundle: "/pause_bundle",
		Policy:      Policy{File: "/etc/kata-opa/default-policy.rego"},
		MemAgent: MemAgent{
			Memcg: Memcg{SwappinessMax: 50, PeriodSecs: 600, PeriodPSIPercent: 1, EvictionPSIPercent: 1, EvictionAgingMin: 3},
			Compact: Compact{PeriodSecs: 600, PeriodPSIPercent: 1, PSIPercent: 5, SecMax: 300, Order: 9,
				ForceTimes: math.MaxInt64},
		},
		Attestation: Attestation{EventLog: EventLog{PCR: 17}},
		Image:       Image{WorkDir: "/run/kata-containers/image", MaxLayers: 3},
	}
}
