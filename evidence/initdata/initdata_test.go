package initdata_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"

	"github.com/coffer-cc/coffer/evidence/initdata"
)

const sample = `algorithm = "sha384"
version = "0.1.0"

[data]
"aa.toml" = '''
[token_configs.kbs]
url = "http://kbs.example:8080"
'''
"policy.rego" = "package agent_policy"
`

func TestParse(t *testing.T) {
	head := "version = \"0.1.0\"\nalgorithm = \"sha256\"\n"
	tests := []struct {
		name, in string
		want     map[string]string // nil when the document is to be refused
	}{
		{"sample", sample, map[string]string{
			"aa.toml":     "[token_configs.kbs]\nurl = \"http://kbs.example:8080\"\n",
			"policy.rego": "package agent_policy",
		}},
		{"empty data", head + "[data]\n", map[string]string{}},
		{"unknown key", head + "more = 1\n[data]\na = \"b\"\n", map[string]string{"a": "b"}},
		{"inline table", head + `data = { "a.b" = "c" }`, map[string]string{"a.b": "c"}},
		{"other spelling is another key", head + "[DATA]\na = \"evil\"\n[data]\na = \"b\"\n", map[string]string{"a": "b"}},
		{"only the other spelling", head + "[Data]\na = \"b\"\n", nil},
		{"brackets in a text", head + "[data]\na = '''" + strings.Repeat("[", 99) + "'''\n", map[string]string{"a": strings.Repeat("[", 99)}},
		{"empty", "", nil},
		{"no data", head, nil},
		{"data is a text", head + `data = "x"`, nil},
		{"entry is a number", head + "[data]\na = 1\n", nil},
		{"entry is a table", head + "[data.a]\nb = \"c\"\n", nil},
		{"entry twice", head + "[data]\na = \"b\"\na = \"c\"\n", nil},
		{"no version", "algorithm = \"sha256\"\n[data]\n", nil},
		{"other version", "version = \"0.2.0\"\nalgorithm = \"sha256\"\n[data]\n", nil},
		{"version is a number", "version = 1\nalgorithm = \"sha256\"\n[data]\n", nil},
		{"dashed algorithm", "version = \"0.1.0\"\nalgorithm = \"sha-384\"\n[data]\n", nil},
		{"not utf-8", head + "[data]\na = \"\xff\"\n", nil},
		{"open text", head + "[data]\na = \"b", nil},
		{"nested arrays", "a = " + strings.Repeat("[", 1<<20), nil},
		{"nested tables", "a = " + strings.Repeat("{a=", 1<<18), nil},
		{"dotted key", strings.Repeat("a.", 1<<18) + "a = 1", nil},
		{"too large", head + "[data]\na = \"" + strings.Repeat("x", initdata.MaxSize) + "\"", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			d, err := initdata.Parse([]byte(tt.in))
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("Parse took %v", took)
			}
			if tt.want == nil {
				if !errdefs.IsInvalidArgument(err) {
					t.Fatalf("Parse = %v, %v, want invalid argument", d, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, d.Data); diff != "" || string(d.Raw) != tt.in {
				t.Errorf("Parse: %s", diff)
			}
		})
	}
}

func TestDigest(t *testing.T) {
	for algorithm, want := range map[string]string{ // of FIPS 180-4's example
		"sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		"sha384": "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
		"sha512": "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
	} {
		if got, err := initdata.Digest(algorithm, []byte("abc")); err != nil || hex.EncodeToString(got) != want {
			t.Errorf("Digest(%s) = %x, %v", algorithm, got, err)
		}
	}
	if got, err := initdata.Digest("sm3", []byte("abc")); err == nil {
		t.Errorf("Digest(sm3) = %x, %v", got, err)
	}
	for algorithm, size := range map[string]int{"sha256": 32, "sha384": 48, "sha512": 64} {
		if got, err := initdata.Digest(algorithm, nil); err != nil || len(got) != size {
			t.Errorf("Digest(%s) = %d bytes, %v", algorithm, len(got), err)
		}
	}
	d, err := initdata.Parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	want, _ := initdata.Digest("sha384", []byte(sample))
	if !bytes.Equal(d.Digest(), want) {
		t.Errorf("Document.Digest = %x, want %x", d.Digest(), want)
	}
	if got := (&initdata.Document{Algorithm: "md5"}).Digest(); got != nil {
		t.Errorf("digest with an unknown algorithm = %x", got)
	}
}

func TestPad(t *testing.T) {
	if got := initdata.Pad([]byte{1, 2, 3}, 2); !bytes.Equal(got, []byte{1, 2}) {
		t.Errorf("cut = %v", got)
	}
	// Every digest in every register: HOST_DATA, MRCONFIGID, and the realm
	// personalization value.
	for _, algorithm := range []string{"sha256", "sha384", "sha512"} {
		digest, err := initdata.Digest(algorithm, []byte("abc"))
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{32, 48, 64} {
			want := append(bytes.Clone(digest), make([]byte, 64)...)[:size]
			if got := initdata.Pad(digest, size); !bytes.Equal(got, want) {
				t.Errorf("%s in %d bytes = %x", algorithm, size, got)
			}
		}
	}
	if got := initdata.Pad([]byte{1, 2}, 4); !bytes.Equal(got, []byte{1, 2, 0, 0}) {
		t.Errorf("filled = %v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("version = \"0.1.0\"\nalgorithm = \"sha256\"\ndata = {a = \"\"\"\\\"\"\"\"}"))
	f.Add([]byte("a = '\n''' #"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := initdata.Parse(raw)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Fatalf("error of no class: %v", err)
			}
			return
		}
		if d.Digest() == nil {
			t.Fatal("a parsed document has no digest")
		}
	})
}
