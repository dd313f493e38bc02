package crypt

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/secret"
)

const prefix = "X."

var root = strings.Repeat("ab", 32)

func words(extra ...string) []string {
	return append([]string{"X.roothash=" + root, "X.hashoffset=8192"}, extra...)
}

func TestParseVerity(t *testing.T) {
	for _, tt := range []struct {
		name  string
		words []string
		want  string // parameters; empty for a refusal
	}{
		{"defaults", words(), "1 7:1 7:1 4096 4096 2 3 sha256 " + root + " -"},
		{"all", words("X.blocksize=512", "X.hashsize=1024", "X.algorithm=sha256", "X.salt=00FF", "X.hashtype=0", "X.no-superblock=true"),
			"0 7:1 7:1 512 1024 16 8 sha256 " + root + " 00ff"},
		{"superblock in small blocks", words("X.hashsize=512"), "1 7:1 7:1 4096 512 2 17 sha256 " + root + " -"},
		{"no salt", words("X.salt=-"), "1 7:1 7:1 4096 4096 2 3 sha256 " + root + " -"},
		{"sha512", []string{"X.hashoffset=4096", "X.algorithm=sha512", "X.roothash=" + root + root}, "1 7:1 7:1 4096 4096 1 2 sha512 " + root + root + " -"},
		{"no root hash", []string{"X.hashoffset=4096"}, ""},
		{"root hash of another algorithm", words("X.algorithm=sha512"), ""},
		{"root hash that is no hex", []string{"X.hashoffset=4096", "X.roothash=" + strings.Repeat("zz", 32)}, ""},
		{"root hash with more to it", []string{"X.hashoffset=4096", "X.roothash=" + root + " - 1 ignore_corruption"}, ""},
		{"salt with more to it", words("X.salt=00 1 ignore_corruption"), ""},
		{"weak algorithm", words("X.algorithm=sha1"), ""},
		{"no offset", []string{"X.roothash=" + root}, ""},
		{"odd offset", []string{"X.roothash=" + root, "X.hashoffset=4097"}, ""},
		{"odd block", words("X.blocksize=1000"), ""},
		{"large block", words("X.blocksize=8192"), ""},
		{"no block", words("X.blocksize=0"), ""},
		{"unknown type", words("X.hashtype=2"), ""},
		{"twice", words("X.roothash=" + root), ""},
		{"unknown", words("X.ignore_corruption=1"), ""},
		{"without a value", words("X.no-superblock"), ""},
		{"without the prefix", words("salt=00"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := ParseVerity(prefix, tt.words)
			if (tt.want == "") != errdefs.IsInvalidArgument(err) {
				t.Fatalf("got %v", err)
			}
			if err != nil {
				return
			}
			if got := v.params("7:1"); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestVerityAgrees asks veritysetup for a tree and sees that its root hash and
// its place are what we would tell the kernel.
func TestVerityAgrees(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("veritysetup", "format", "--salt=00ff", "--hash-offset=65536", image, image).CombinedOutput()
	if err != nil {
		t.Fatalf("veritysetup: %v, %s", err, out)
	}
	hash := regexp.MustCompile(`Root hash:\s+([0-9a-f]+)`).FindSubmatch(out)
	if hash == nil {
		t.Fatalf("veritysetup says %s", out)
	}
	v, err := ParseVerity(prefix, []string{"X.roothash=" + string(hash[1]), "X.hashoffset=65536", "X.salt=00ff"})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	// 16 blocks of data make one block of hashes, which follows the superblock.
	var start uint64
	if _, err := fmt.Sscanf(strings.Fields(v.params("x"))[6], "%d", &start); err != nil {
		t.Fatal(err)
	}
	top := data[start*v.HashSize:][:32]
	if string(top) == strings.Repeat("\x00", 32) || uint64(len(data)) < (start+1)*v.HashSize {
		t.Errorf("no tree at block %d: %s", start, hex.EncodeToString(top))
	}
	if err := exec.Command("veritysetup", "verify", "--hash-offset=65536", image, image, string(hash[1])).Run(); err != nil {
		t.Errorf("veritysetup does not verify its own tree: %v", err)
	}
}

func TestTable(t *testing.T) {
	b := table{target: "crypt", sectors: 77, params: secret.Bytes("a b c")}.encode()
	const size = 40 // of struct dm_target_spec
	if len(b)%8 != 0 || binary.NativeEndian.Uint64(b) != 0 || binary.NativeEndian.Uint64(b[8:]) != 77 || string(b[24:30]) != "crypt\x00" {
		t.Errorf("header is % x", b[:size])
	}
	if next := binary.NativeEndian.Uint32(b[20:]); int(next) != len(b) {
		t.Errorf("next target at %d of %d", next, len(b))
	}
	if string(b[size:size+6]) != "a b c\x00" {
		t.Errorf("parameters are %q", b[size:])
	}
}

func TestRefusals(t *testing.T) {
	m := &Mapper{Dev: t.TempDir()}
	if _, err := m.create(table{target: "zero", sectors: 8}); !errdefs.IsNotImplemented(err) {
		t.Errorf("no device-mapper: %v", err)
	}
	file := filepath.Join(m.Dev, "file")
	if err := os.WriteFile(file, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := ParseVerity(prefix, words())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.OpenVerity(file, v); !errdefs.IsInvalidArgument(err) {
		t.Errorf("verity of a file: %v", err)
	}
	if _, err := m.OpenVerity(file, Verity{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("verity of nothing: %v", err)
	}
	for _, integrity := range []bool{true, false} {
		if _, err := m.OpenScratch(t.Context(), file, integrity); !errdefs.IsInvalidArgument(err) {
			t.Errorf("scratch in a file: %v", err)
		}
	}
	if b, err := os.ReadFile(file); err != nil || len(strings.Trim(string(b), "\x00")) > 0 {
		t.Errorf("the file was changed: %v", err)
	}
}

func TestParseProvided(t *testing.T) {
	super := func(magic string, n uint64) []byte {
		b := make([]byte, 512)
		copy(b, magic)
		binary.LittleEndian.PutUint64(b[16:], n)
		return b
	}
	const disk = 1 << 20
	for name, tt := range map[string]struct {
		in   []byte
		want uint64
	}{
		"good": {super("integrt\x00", 1024), 1024}, "zeroes": {make([]byte, 512), 0}, "another": {super("LUKS\xba\xbe\x00\x02", 1024), 0},
		"nothing": {super("integrt\x00", 0), 0}, "more than there is": {super("integrt\x00", 4096), 0}, "part of a sector": {super("integrt\x00", 1023), 0},
		"short": {[]byte("integrt\x00"), 0},
	} {
		if got, err := parseProvided(tt.in, disk); got != tt.want || (err == nil) != (tt.want > 0) {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
}

func FuzzVerity(f *testing.F) {
	f.Add("X.roothash="+root, "X.hashoffset=4096", "X.salt=00")
	f.Add("X.algorithm=sha512", "X.blocksize=512", "X.no-superblock=yes")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		v, err := ParseVerity(prefix, []string{a, b, c})
		if err != nil {
			return
		}
		// One word too many would be an option of the target, such as
		// ignore_corruption.
		if got := v.params("7:1"); len(strings.Fields(got)) != 10 || strings.ContainsAny(got, "\x00\n") {
			t.Errorf("parameters are %q", got)
		}
	})
}

func FuzzIntegritySuperblock(f *testing.F) {
	f.Add(append([]byte("integrt\x00"), make([]byte, 32)...), uint64(1<<20))
	f.Fuzz(func(t *testing.T, b []byte, size uint64) {
		if n, err := parseProvided(b, size); err == nil && (n == 0 || n*512 > size) {
			t.Errorf("%d sectors of %d bytes", n, size)
		}
	})
}
