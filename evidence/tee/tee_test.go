package tee

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/tpm"
)

// guest lays out a root with the files, where a name with "=" has contents.
func guest(t *testing.T, provider string, files ...string) []Driver {
	t.Helper()
	return guestHost(t, provider, files...).drivers()
}

func guestHost(t *testing.T, provider string, files ...string) host {
	t.Helper()
	root := t.TempDir()
	for _, f := range files {
		name, text, _ := strings.Cut(f, "=")
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return host{root: root, reports: &evidencetest.TSM{Provider: provider}, ioctl: ioctl, openSNP: openSNP, openTPM: tpm.Open}
}

func TestDetect(t *testing.T) {
	tests := []struct {
		name, provider string
		files          []string
		want           evidence.Kind // "" when there is none
	}{
		{"nothing", "", nil, ""},
		{"other processor", "", []string{"proc/cpuinfo=flags\t\t: fpu tdx_guestish\n"}, ""},
		{"other provider", "somebody_guest", nil, ""},
		{"cca provider", "arm_cca_guest", nil, evidence.CCA},
		{"cca without driver", "", []string{"sys/devices/platform/arm-cca-dev"}, evidence.CCA},
		{"tdx device", "", []string{"dev/tdx_guest"}, evidence.TDX},
		{"tdx provider", "tdx_guest", nil, evidence.TDX},
		{"tdx without driver", "", []string{"proc/cpuinfo=processor\t: 0\nflags\t\t: fpu tdx_guest sse\n"}, evidence.TDX},
		{"snp device", "", []string{"dev/sev-guest"}, evidence.SNP},
		{"snp without driver", "", []string{"sys/devices/platform/sev-guest"}, evidence.SNP},
		{"snp provider", "sev_guest", nil, evidence.SNP},
		{"se guest", "", []string{"sys/firmware/uv/prot_virt_guest=1\n"}, evidence.SE},
		{"se host", "", []string{"sys/firmware/uv/prot_virt_guest=0\n", "dev/uv"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ds := guest(t, tt.provider, tt.files...)
			c, err := Detect(ds)
			if Present(ds) != (tt.want != "") {
				t.Errorf("Present = %v", Present(ds))
			}
			if tt.want == "" {
				if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "/dev/sev-guest") {
					t.Fatalf("Detect = %v, %v, want not found and what was looked for", c, err)
				}
				return
			}
			if err != nil || c.Kind() != tt.want {
				t.Fatalf("Detect = %v, %v, want %s", c, err, tt.want)
			}
			if e, err := c.Collect(t.Context(), evidence.ReportData{}); err == nil {
				t.Errorf("a platform without a driver makes the evidence %s", e.Data)
			}
		})
	}
}

// TestPresentOpensTheDevice sees nodes of each kind in the place of a device.
func TestPresentOpensTheDevice(t *testing.T) {
	for name, c := range map[string]struct {
		node func(path string) error
		want bool
	}{
		"a device": {func(p string) error { return os.WriteFile(p, nil, 0o600) }, true},
		"ENOENT":   {func(p string) error { return os.Symlink("nowhere", p) }, false},
		"ENXIO": {func(p string) error {
			return unix.Mknod(p, unix.S_IFSOCK|0o600, 0)
		}, false},
		"EISDIR": {func(p string) error { return os.Mkdir(p, 0o700) }, true},
		"ELOOP":  {func(p string) error { return os.Symlink(p, p) }, true},
	} {
		for _, device := range []string{"sev-guest", "tdx_guest"} {
			t.Run(name+" at "+device, func(t *testing.T) {
				h := host{root: t.TempDir(), reports: &evidencetest.TSM{}, openTPM: tpm.Open}
				if err := os.Mkdir(filepath.Join(h.root, "dev"), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := c.node(filepath.Join(h.root, "dev", device)); err != nil {
					t.Fatal(err)
				}
				if got := Present(h.drivers()); got != c.want {
					t.Errorf("Present = %v", got)
				}
			})
		}
	}
}

// sevStatus is SEV_STATUS in the file of the kernel's driver for MSRs.
func sevStatus(t *testing.T, ds host, value byte) {
	t.Helper()
	put(t, ds.root, "dev/cpu/0/msr", nil)
	f, err := os.OpenFile(filepath.Join(ds.root, "dev/cpu/0/msr"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{value, 0, 0, 0, 0, 0, 0, 0}, 0xc0010131); err != nil {
		t.Fatal(err)
	}
}

func TestRefusedPlatforms(t *testing.T) {
	const both = "proc/cpuinfo=flags\t\t: fpu hypervisor sev sev_es\n"
	tests := []struct {
		name  string
		msr   int // -1 where the kernel shows none
		files []string
		want  string // "" where nothing is met
	}{
		{"sev-es by flags", -1, []string{both}, "SEV-ES without SNP, which"},
		{"sev by flags", -1, []string{"proc/cpuinfo=flags\t\t: hypervisor sev\n"}, "SEV without SNP, which"},
		{"a host of such guests", -1, []string{"proc/cpuinfo=flags\t\t: fpu sev sev_es\n"}, ""},
		{"sev-es by register", 3, nil, "SEV-ES without SNP, which"},
		{"sev by register", 1, nil, "SEV without SNP, which"},
		{"snp by register", 7, []string{both}, ""},
		{"register against flags", 0, []string{both}, ""},
		{"csv", -1, []string{both, "dev/csv-guest"}, "Hygon CSV, whose"},
		{"sgx", -1, []string{"dev/sgx_enclave"}, "SGX, whose"},
		{"sgx and sev", -1, []string{both, "dev/sgx_enclave"}, "SEV-ES without SNP, which"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := guestHost(t, "", tt.files...)
			if tt.msr >= 0 {
				sevStatus(t, h, byte(tt.msr))
			}
			ds := h.drivers()
			if Present(ds) {
				t.Error("it counts as a platform")
			}
			c, err := Detect(ds)
			if c != nil || !errdefs.IsNotFound(err) {
				t.Fatalf("Detect = %v, %v", c, err)
			}
			want, code := tt.want, evidence.PlatformUnsupported
			if want == "" {
				want, code = "/sys/firmware/uv/prot_virt_guest", evidence.PlatformNone
			}
			if !strings.Contains(err.Error(), want) || evidence.CodeOf(err) != code {
				t.Errorf("Detect: %v, want %q", err, want)
			}
			if _, err := Select("snp", ds); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Select: %v", err)
			}
			if c, err := Select("sample", ds); err != nil || c.Kind() != evidence.Sample {
				t.Errorf("Select sample: %v, %v", c, err)
			}
		})
	}
	// A platform goes before what else the machine has.
	if c, err := Detect(guest(t, "", "dev/sev-guest", both, "dev/sgx_enclave")); err != nil || c.Kind() != evidence.SNP {
		t.Errorf("SNP with the flags of SEV: %v, %v", c, err)
	}
}

// TestNoneFound lists what was looked for, and nothing that is refused anyway.
func TestNoneFound(t *testing.T) {
	_, err := Detect(guest(t, ""))
	for _, d := range guest(t, "") {
		if named := strings.Contains(err.Error(), string(d.Kind)+" ("+d.Signs+")"); named == d.Refused {
			t.Errorf("%s named: %v in %v", d.Kind, named, err)
		}
	}
}

func TestSelect(t *testing.T) {
	bare, tdx := guest(t, ""), guest(t, "tdx_guest")
	tests := []struct {
		name, choice string
		ds           []Driver
		want         evidence.Kind
		class        func(error) bool
	}{
		{"found", "", tdx, evidence.TDX, nil},
		{"named and present", "tdx", tdx, evidence.TDX, nil},
		{"sample on nothing", "sample", bare, evidence.Sample, nil},
		{"no choice on nothing", "", bare, "", errdefs.IsNotFound},
		{"sample on a real platform", "sample", tdx, "", errdefs.IsFailedPrecondition},
		{"other platform", "snp", tdx, "", errdefs.IsFailedPrecondition},
		{"named and absent", "tdx", bare, "", errdefs.IsFailedPrecondition},
		{"unknown name", "sampl", bare, "", errdefs.IsFailedPrecondition},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Select(tt.choice, tt.ds)
			if tt.class != nil {
				if !tt.class(err) {
					t.Fatalf("Select = %v, %v", c, err)
				}
				return
			}
			if err != nil || c.Kind() != tt.want {
				t.Fatalf("Select = %v, %v, want %s", c, err, tt.want)
			}
		})
	}
}

func TestNoDriverIsSample(t *testing.T) {
	for _, d := range Drivers(nil) {
		if d.Kind == evidence.Sample {
			t.Error("a search can end at the sample collector")
		}
	}
}

func TestSampleEvidence(t *testing.T) {
	rd, err := evidence.NewReportData([]byte{0xff, 0, 0})
	if err != nil {
		t.Fatal(err)
	}
	e, err := Sample().Collect(context.Background(), rd)
	if err != nil || e.Kind != evidence.Sample || string(e.Data) != `{"svn":"1","report_data":"/wAA"}` {
		t.Errorf("Collect = %s %s, %v", e.Kind, e.Data, err)
	}
	if _, err := evidence.NewReportData(make([]byte, 65)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("65 bytes of report data: %v", err)
	}
}
