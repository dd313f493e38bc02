package devkbs

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
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
	// TEE are the platforms, as in kinds.
	TEE []evidence.Kind `toml:"tee"`
	// Measurement are launch measurements of SNP or MRTDs of TDX, in hex; on
	// Azure they are those of the paravisor.
	Measurement []string `toml:"measurement"`
	// InitData are digests of initdata, in hex, in whatever length their
	// algorithm has.
	InitData []string `toml:"initdata"`
	// Unbound also accepts, for InitData, the mere word of a guest that no
	// hardware vouches for it.
	Unbound bool `toml:"unbound"`
	// RTMR are runtime registers of TDX by number, in hex.
	RTMR map[string]string `toml:"rtmr"`
	// PCR are registers of a TPM by number, in hex.
	PCR map[string]string `toml:"pcr"`
	// AK are keys of plain TPMs: the SHA-256 of the SubjectPublicKeyInfo, in hex.
	// Nothing else vouches for such a TPM, so without it one gets nothing.
	AK []string `toml:"ak"`
	// TCBStatus are words of Intel for the age of a TDX platform, as in
	// verify.TCBStatuses. Without collateral no platform has any.
	TCBStatus []string `toml:"tcb_status"`
	// Debug also accepts guests whose memory the host may read.
	Debug bool `toml:"debug"`
}

// kinds are the platforms that a rule may name.
var kinds = []evidence.Kind{evidence.TDX, evidence.SNP, evidence.AzTDX, evidence.AzSNP, evidence.TPM, evidence.Sample}

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
		if !slices.Contains(kinds, k) {
			return fmt.Errorf("tee %q is not one of %v", k, kinds)
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
	for _, s := range r.TCBStatus {
		if !slices.Contains(verify.TCBStatuses, s) {
			return fmt.Errorf("tcb_status %q is not one of %s", s, strings.Join(verify.TCBStatuses, ", "))
		}
	}
	return r.checkTPM()
}

func (r Rule) checkTPM() error {
	for n, v := range r.PCR {
		i, err := strconv.ParseUint(n, 10, 8)
		if b, err2 := hex.DecodeString(v); err != nil || err2 != nil || len(b) != 32 || i >= verify.PCRs || n != strconv.FormatUint(i, 10) {
			return fmt.Errorf("pcr is not a register from 0 to %d with 32 bytes in hex", verify.PCRs-1)
		}
	}
	for _, k := range r.AK {
		if b, err := hex.DecodeString(k); err != nil || len(b) != 32 {
			return errors.New("ak is not the SHA-256 of a key in hex")
		}
	}
	return nil
}

// DemandTCB reports whether a rule cannot be fulfilled without collateral.
func (rs Rules) DemandTCB() bool {
	return slices.ContainsFunc(rs, func(r Rule) bool { return len(r.TCBStatus) > 0 })
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
	case st.HostControlled && !slices.ContainsFunc(r.AK, same(st.AK[:])):
		return fmt.Sprintf("the TPM's key, which nothing vouches for, is %x", st.AK)
	case len(r.AK) > 0 && !st.HostControlled:
		return "the key is not that of a plain TPM"
	case len(r.Measurement) > 0 && (st.HostControlled || !slices.ContainsFunc(r.Measurement, same(st.Measurement[:]))):
		return fmt.Sprintf("measurement is %x", st.Measurement)
	case len(r.InitData) > 0 && !slices.ContainsFunc(r.InitData, launched(st)):
		return fmt.Sprintf("initdata is %x", st.InitData)
	case len(r.InitData) > 0 && st.Unbound && !r.Unbound:
		return "initdata is not bound to hardware, and the rule does not say unbound = true"
	case len(r.TCBStatus) > 0 && !slices.Contains(r.TCBStatus, st.TCBStatus):
		return fmt.Sprintf("TCB status is %s", cmp.Or(st.TCBStatus, "not judged"))
	}
	for n, want := range r.RTMR {
		if got := st.RTMR[n[0]-'0']; st.TEE != evidence.TDX && st.TEE != evidence.AzTDX || !same(got[:])(want) {
			return fmt.Sprintf("RTMR%s is %x", n, got)
		}
	}
	for n, want := range r.PCR {
		if i, err := strconv.Atoi(n); err != nil || i >= len(st.PCR) || !same(st.PCR[i][:])(want) {
			return fmt.Sprintf("PCR %s is not what the rule wants", n)
		}
	}
	return ""
}

func same(b []byte) func(string) bool {
	return func(s string) bool { return strings.EqualFold(s, hex.EncodeToString(b)) }
}

// launched compares a digest the way it was put into the register.
func launched(st *verify.Statement) func(string) bool {
	return func(s string) bool {
		digest, err := hex.DecodeString(s)
		return err == nil && st.BootedWith(digest)
	}
}
