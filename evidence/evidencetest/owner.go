package evidencetest

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/coffer-cc/coffer/evidence/devkbs"
	"github.com/coffer-cc/coffer/evidence/initdata"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// What an Owner keeps, by the paths of resources.
const (
	OwnerKey  = "default/key/1"   // for the owner's guest
	OtherKey  = "default/other/1" // for a guest with another measurement
	OwnerText = "a key of the owner"
)

// Owner is whose guest it is: a key broker that gives OwnerText to what has the
// right measurement and is no debug guest.
type Owner struct {
	*KBS
	log *journal
}

// Log is what the broker has logged of its decisions.
func (o Owner) Log() string {
	o.log.mu.Lock()
	defer o.log.mu.Unlock()
	return o.log.text.String()
}

type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write fits slog.
func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(line)
}

// NewOwner starts the broker, which trusts nobody but trust.
func NewOwner(t testing.TB, trust verify.Options, measurement [48]byte) Owner {
	t.Helper()
	other := measurement
	other[0] ^= 1
	text := ""
	for path, m := range map[string][48]byte{OwnerKey: measurement, OtherKey: other} {
		text += fmt.Sprintf("[[resource]]\npath = %q\nmeasurement = [%q]\n", path, hex.EncodeToString(m[:]))
	}
	rules, err := devkbs.ParseRules([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	log := &journal{}
	return Owner{NewKBS(t, devkbs.Options{
		Resources: Resources(map[string]string{OwnerKey: OwnerText, OtherKey: OwnerText}),
		Rules:     rules, Verify: trust, Issuer: "owner",
		Log: slog.New(slog.NewTextHandler(log, nil)),
	}), log}
}

// Document is initdata that names a broker by its address, and its digest.
func Document(t testing.TB, url string) (text string, digest []byte) {
	t.Helper()
	text = fmt.Sprintf("version = \"0.1.0\"\nalgorithm = \"sha384\"\n[data]\n\"aa.toml\" = '''\n[token_configs.kbs]\nurl = %q\n'''\n", url)
	digest, err := initdata.Digest("sha384", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return text, digest
}
