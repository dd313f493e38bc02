package measure_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/measure"
)

// logs are of firmware, with the size of its area and the number of events that
// Trustee finds in it, where it was recorded.
var logs = []struct {
	file         string
	area, events int
}{
	{"CCEL_data.gz", 1048576, 5},
	{"CCEL_data_csv.gz", 65536, 82},
	{"CCEL_data_gcp.gz", 262144, 21},
	{"CCEL_data_grub.gz", 65536, 37},
	{"CCEL_data_grub_gke.gz", 262144, 35},
	{"CCEL_data_ovmf.gz", 65536, 20},
	{"ccel_data.dat.gz", 262144, 43},
}

func TestTrim(t *testing.T) {
	for _, c := range logs {
		t.Run(c.file, func(t *testing.T) {
			area := evidencetest.Fixture(t, "eventlog/"+c.file)
			events, used, err := measure.CCEL(area)
			if err != nil {
				t.Fatal(err)
			}
			if len(area) != c.area || len(events) != c.events {
				t.Errorf("%d events in %d bytes", len(events), len(area))
			}
			if rest := bytes.Trim(area[len(used):], "\xff\x00"); len(rest) != 0 {
				t.Errorf("%d bytes of content are cut off", len(rest))
			}
			again, same, err := measure.CCEL(append(bytes.Clone(used), bytes.Repeat([]byte{0xff}, 8)...))
			if err != nil || len(again) != len(events) || !bytes.Equal(same, used) {
				t.Errorf("trimmed it holds %d events in %d bytes, %v", len(again), len(same), err)
			}
		})
	}
}

// TestAlibaba replays a log with two events of the guest's own in the fourth
// register.
func TestAlibaba(t *testing.T) {
	events, _, err := measure.CCEL(append(evidencetest.Fixture(t, "eventlog/CCEL_AAEL_alibabacloud.gz"), bytes.Repeat([]byte{0xff}, 8)...))
	if err != nil {
		t.Fatal(err)
	}
	rtmr, err := measure.Replay(events)
	if err != nil || !strings.HasPrefix(hex.EncodeToString(rtmr[3][:]), "5e4ecd49") {
		t.Errorf("RTMR3 = %x, %v", rtmr[3], err)
	}
}

func TestBrokenLogs(t *testing.T) {
	whole := evidencetest.Fixture(t, "eventlog/ccel_data.dat.gz")
	_, used, err := measure.CCEL(whole)
	if err != nil {
		t.Fatal(err)
	}
	sha1 := bytes.Clone(whole)
	sha1[28+4+int(whole[28])+int(whole[29])<<8+12] = 4 // the first digest's algorithm
	for name, log := range map[string][]byte{
		"empty":             nil,
		"no mark":           used,
		"cut in an event":   used[:len(used)-3],
		"unknown algorithm": sha1,
		"too long":          make([]byte, measure.MaxLog+1),
	} {
		if events, _, err := measure.CCEL(log); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %d events, %v", name, len(events), err)
		}
	}
}

func FuzzCCEL(f *testing.F) {
	for _, c := range logs {
		_, used, err := measure.CCEL(evidencetest.Fixture(f, "eventlog/"+c.file))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(bytes.Clone(used[:min(len(used), 4096)]), make([]byte, 8)...))
	}
	f.Fuzz(func(t *testing.T, log []byte) {
		events, used, err := measure.CCEL(log)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("class of %v", err)
			}
			return
		}
		if !bytes.HasPrefix(log, used) {
			t.Error("the used part is not the beginning of the log")
		}
		_, _ = measure.Replay(events)
	})
}

// FuzzLine takes for an entry of the runtime log only what says the same again
// when it is recorded.
func FuzzLine(f *testing.F) {
	events, _, err := measure.CCEL(append(evidencetest.Fixture(f, "eventlog/CCEL_AAEL_alibabacloud.gz"), bytes.Repeat([]byte{0xff}, 8)...))
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range events {
		if _, ok := measure.Line(e); ok {
			f.Add(e.Type, e.Data)
			f.Add(e.Type+1, e.Data)
		}
	}
	for _, line := range []string{"domain operation content", "domain operation {\"a\": 1}", "domain operation ", "domain operation", " operation content", "a b c\nd", "\x00 b c"} {
		f.Add(uint32(6), append([]byte{0x4c, 0x45, 0x41, 0x41, byte(len(line)), 0, 0, 0}, line...))
	}
	f.Add(uint32(6), []byte("LEAA\xff\xff\xff\xffdomain operation content"))
	f.Fuzz(func(t *testing.T, kind uint32, data []byte) {
		line, ok := measure.Line(measure.Event{Type: kind, Data: data})
		if !ok {
			return
		}
		if err := line.Check(); err != nil || string(data[8:]) != line.Domain+" "+line.Operation+" "+line.Content || len(data) != 8+int(binary.LittleEndian.Uint32(data[4:])) {
			t.Errorf("%q is read as %+v, %v", data, line, err)
		}
	})
}

// tree is what Linux 6.16 shows of the registers.
func tree(t *testing.T) measure.Files {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "sys/devices/virtual/misc/tdx_guest/measurements")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mrconfigid", "mrowner", "mrownerconfig", "mrtd:sha384", "rtmr0:sha384", "rtmr1:sha384", "rtmr2:sha384", "rtmr3:sha384"} {
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte{byte(len(name))}, 48), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return measure.Files(root)
}

func TestRegisters(t *testing.T) {
	f := tree(t)
	if b, err := f.MRConfigID(); err != nil || len(b) != 48 {
		t.Errorf("MRConfigID = %x, %v", b, err)
	}
	digest := bytes.Repeat([]byte{7}, 48)
	if err := f.Extend(3, digest); err != nil {
		t.Fatal(err)
	}
	// A plain file keeps what is written into it; the kernel would hash it.
	if b, err := f.RTMR(3); err != nil || !bytes.Equal(b, digest) {
		t.Errorf("RTMR3 = %x, %v", b, err)
	}
	for name, err := range map[string]error{
		"firmware's register": f.Extend(1, digest),
		"no register":         f.Extend(4, digest),
		"SHA-256":             f.Extend(2, digest[:32]),
	} {
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNoRegisters(t *testing.T) {
	f := measure.Files(t.TempDir())
	_, read := f.RTMR(2)
	for _, err := range []error{read, f.Extend(2, make([]byte, 48))} {
		if !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "NOT_SUPPORTED") {
			t.Errorf("got %v", err)
		}
	}
}
