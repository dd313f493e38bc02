package devkbs

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/initdata"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// maxRules bounds the file of rules.
const maxRules = 1 << 20

// Rules say which guests get which resources: the first rule whose path fits
// decides, and a resource that no rule names is given to nobody.
type Rules []Rule

// Rule is one table [[resource]] of the file. What is empty is not asked for;
// of a list one entry has to fit.
type Rule struct {
	// Path is a pattern of path.Match over repository/type/tag.
	Path string `toml:"path"`
	// TEE are the platforms, tdx, snp or sample.
	TEE []evidence.Kind `toml:"tee"`
	// Measurement are launch measurements of SNP or MRTDs of TDX, in hex.
	Measurement []string `toml:"measurement"`
	// InitData are digests of initdata, in hex, in whatever length their
	// algorithm has.
	InitData []string `toml:"initdata"`
	// RTMR are runtime registers of TDX by number, in hex.
	RTMR map[string]string `toml:"rtmr"`
	// Debug also accepts guests whose memory the host may read.
	Debug bool `toml:"debug"`
}

// ReadRules reads a TOML file. What it does not know or understand wraps
// errdefs.ErrInvalidArgument: a misspelt condition would not be asked for.
func ReadRules(file string) (Rules, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRules+1))
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	rules, err := ParseRules(text)
	if err != nil {
		return nil, fmt.Errorf("rules in %s: %w", file, err)
	}
	return rules, nil
}

// ParseRules is ReadRules on a text.
func ParseRules(text []byte) (Rules, error) {
	if len(text) > maxRules {
		return nil, fmt.Errorf("more than %d bytes: %w", maxRules, errdefs.ErrInvalidArgument)
	}
	var file struct {
		Resource Rules `toml:"resource"`
	}
	meta, err := toml.Decode(string(text), &file)
	if pe := (toml.ParseError{}); errors.As(err, &pe) {
		return nil, fmt.Errorf("line %d: %s: %w", pe.Position.Line, pe.Message, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if more := meta.Undecoded(); len(more) > 0 {
		return nil, fmt.Errorf("unknown key %s: %w", more[0], errdefs.ErrInvalidArgument)
	}
	for i, r := range file.Resource {
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("rule %d: %w: %w", i+1, err, errdefs.ErrInvalidArgument)
		}
	}
	return file.Resource, nil
}

func (r Rule) check() error {
	if _, err := path.Match(r.Path, ""); err != nil || strings.Count(r.Path, "/") != 2 {
		return errors.New("path is not a pattern of the form repository/type/tag")
	}
	for _, k := range r.TEE {
		if !slices.Contains([]evidence.Kind{evidence.TDX, evidence.SNP, evidence.Sample}, k) {
			return fmt.Errorf("tee %q is not tdx, snp or sample", k)
		}
	}
	for _, m := range r.Measurement {
		if b, err := hex.DecodeString(m); err != nil || len(b) != 48 {
			return errors.New("measurement is not 48 bytes in hex")
		}
	}
	for _, d := range r.InitData {
		if b, err := hex.DecodeString(d); err != nil || !slices.Contains([]int{32, 48, 64}, len(b)) {
			return errors.New("initdata is not a digest of sha256, sha384 or sha512 in hex")
		}
	}
	for n, v := range r.RTMR {
		if b, err := hex.DecodeString(v); err != nil || len(b) != 48 || !slices.Contains([]string{"0", "1", "2", "3"}, n) {
			return errors.New("rtmr is not a register from 0 to 3 with 48 bytes in hex")
		}
	}
	return nil
}

// deny returns why the guest does not get the resource, "" if it does.
func (rs Rules) deny(name string, st *verify.Statement) string {
	for i, r := range rs {
		if fits, _ := path.Match(r.Path, name); fits {
			if reason := r.deny(st); reason != "" {
				return fmt.Sprintf("rule %d: %s", i+1, reason)
			}
			return ""
		}
	}
	return "no rule names it"
}

func (r Rule) deny(st *verify.Statement) string {
	switch {
	case len(r.TEE) > 0 && !slices.Contains(r.TEE, st.TEE):
		return fmt.Sprintf("platform is %s", st.TEE)
	case st.Debug && !r.Debug:
		return "the guest is a debug guest: its host may read its memory"
	case len(r.Measurement) > 0 && !slices.ContainsFunc(r.Measurement, same(st.Measurement[:])):
		return fmt.Sprintf("measurement is %x", st.Measurement)
	case len(r.InitData) > 0 && !slices.ContainsFunc(r.InitData, padded(st.InitData)):
		return fmt.Sprintf("initdata is %x", st.InitData)
	}
	for n, want := range r.RTMR {
		if got := st.RTMR[n[0]-'0']; st.TEE != evidence.TDX || !same(got[:])(want) {
			return fmt.Sprintf("RTMR%s is %x", n, got)
		}
	}
	return ""
}

func same(b []byte) func(string) bool {
	return func(s string) bool { return strings.EqualFold(s, hex.EncodeToString(b)) }
}

// padded compares a digest the way it was put into the register.
func padded(register []byte) func(string) bool {
	return func(s string) bool {
		digest, err := hex.DecodeString(s)
		return err == nil && len(register) > 0 && string(initdata.Pad(digest, len(register))) == string(register)
	}
}
