package initdata_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/initdata"
)

func encode(t testing.TB, raw string) []byte {
	t.Helper()
	disk, err := initdata.EncodeDisk([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

func TestDiskRoundTrip(t *testing.T) {
	for _, raw := range []string{"", "some content", sample, strings.Repeat("x", 100_000)} {
		disk := encode(t, raw)
		if len(disk)%512 != 0 || string(disk[:8]) != "initdata" {
			t.Fatalf("disk of %d bytes begins with %q", len(disk), disk[:8])
		}
		got, err := initdata.DecodeDisk(bytes.NewReader(disk), 1<<20)
		if err != nil || string(got) != raw {
			t.Fatalf("DecodeDisk = %d bytes, %v, want %d", len(got), err, len(raw))
		}
	}
	if !bytes.Equal(encode(t, sample), encode(t, sample)) {
		t.Error("the same text gives different disks")
	}
}

func TestDecodeDiskHostile(t *testing.T) {
	withLength := func(n uint64) []byte {
		disk := encode(t, sample)
		binary.LittleEndian.PutUint64(disk[8:], n)
		return disk
	}
	damaged := encode(t, sample)
	damaged[60] ^= 0xff
	tests := []struct {
		name string
		disk []byte
		max  int64
		want error
	}{
		{"other disk", make([]byte, 512), 1 << 20, initdata.ErrNoMagic},
		{"empty disk", nil, 1 << 20, initdata.ErrNoMagic},
		{"short disk", []byte("initdata"), 1 << 20, initdata.ErrNoMagic},
		{"endless length", withLength(1<<64 - 1), 1 << 20, errdefs.ErrInvalidArgument},
		{"length of three gigabytes", withLength(3 << 30), 1 << 20, errdefs.ErrInvalidArgument},
		{"length cuts the data", withLength(20), 1 << 20, errdefs.ErrInvalidArgument},
		{"length zero", withLength(0), 1 << 20, errdefs.ErrInvalidArgument},
		{"damaged", damaged, 1 << 20, errdefs.ErrInvalidArgument},
		{"inflates beyond the limit", encode(t, strings.Repeat("x", 1<<20)), 1<<20 - 1, errdefs.ErrInvalidArgument},
		{"negative limit", encode(t, ""), -1, errdefs.ErrInvalidArgument},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := initdata.DecodeDisk(bytes.NewReader(tt.disk), tt.max); !errors.Is(err, tt.want) {
				t.Errorf("DecodeDisk = %d bytes, %v, want %v", len(got), err, tt.want)
			}
		})
	}
	broken := iotest.ErrReader(errors.New("bad sector"))
	if _, err := initdata.DecodeDisk(broken, 1); err == nil || errors.Is(err, initdata.ErrNoMagic) {
		t.Errorf("unreadable disk: %v", err)
	}
	if !errdefs.IsNotFound(initdata.ErrNoMagic) {
		t.Error("ErrNoMagic has no class")
	}
}

func FuzzDecodeDisk(f *testing.F) {
	f.Add(encode(f, sample))
	f.Add([]byte("initdata\x10\x00\x00\x00\x00\x00\x00\x00\x1f\x8b"))
	f.Fuzz(func(t *testing.T, disk []byte) {
		got, err := initdata.DecodeDisk(bytes.NewReader(disk), 1<<16)
		if err == nil && len(got) > 1<<16 {
			t.Fatalf("inflated to %d bytes", len(got))
		}
		if errors.Is(err, io.EOF) {
			t.Fatalf("bare end of file: %v", err)
		}
	})
}
