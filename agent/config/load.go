package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/containerd/errdefs"
)

// Sources is where settings come from.
type Sources struct {
	// Args are the arguments of the program, without its name. They are
	// believed: leave them out where the kernel started the program, because
	// words of its command line become arguments of the first process.
	Args    []string
	Cmdline string   // text of the kernel command line
	Env     []string // name=value
	File    string   // the image's own file; "" is ImagePath. It may be absent.
	// TEEPresent reports whether the guest runs on a confidential platform.
	// nil counts as present.
	TEEPresent func() bool
}

// System returns the sources of the running program.
func System(args []string, teePresent func() bool) (Sources, error) {
	cmdline, err := readFile("/proc/cmdline")
	if err != nil {
		return Sources{}, fmt.Errorf("read the kernel command line: %w", err)
	}
	return Sources{Args: args, Cmdline: cmdline, Env: os.Environ(), TEEPresent: teePresent}, nil
}

// Note is something about a source that does not stop the boot. It holds no
// value of a key.
type Note struct {
	Key    string
	Source string
	Text   string
}

// Report says what Load made of its sources.
type Report struct {
	File           string // the file that was read; "" if none
	CmdlineTrusted bool
	Ignored        int // keys of the host that only the image may set
	Notes          []Note
}

// maxNotes bounds what a long command line can make the agent log.
const maxNotes = 64

func (r *Report) note(key, source, text string) {
	if len(key) > maxKeyName {
		key = key[:maxKeyName]
	}
	if len(r.Notes) < maxNotes {
		r.Notes = append(r.Notes, Note{Key: key, Source: source, Text: text})
	}
}

const maxKeyName = 64

// Log writes one warning for each note.
func (r Report) Log(ctx context.Context) {
	for _, n := range r.Notes {
		slog.WarnContext(ctx, "setting is not used", "key", n.Key, "origin", n.Source, "reason", n.Text)
	}
}

// Names of sources in notes and errors.
const (
	fromCmdline = "kernel command line"
	fromEnv     = "environment"
)

const configFileKey = "agent.config_file"

// Load puts the settings together. Later ones overrule earlier ones:
//
//	defaults < command line < environment < the image's file
//
// With --config FILE it is defaults < FILE < environment, and FILE is the
// image's file. With agent.config_file=FILE, where the command line is
// trusted, it is defaults < FILE.
//
// A malformed value is an errdefs.ErrInvalidArgument that names the key.
func Load(s Sources) (Config, Report, error) {
	file, explicit, err := fileOf(s)
	if err != nil {
		return Config{}, Report{}, err
	}
	image, found, err := fromFile(file, explicit)
	if err != nil {
		return Config{}, Report{}, err
	}
	l := loader{config: Default(), ignored: map[string]bool{}}
	l.report.CmdlineTrusted = trustsHost(image, s.TEEPresent)
	if found {
		l.report.File = file
	}
	if explicit {
		l.config = image
		err = l.environment(s.Env)
		return l.done(err)
	}
	if replaced, err := l.cmdline(s.Cmdline); replaced || err != nil {
		return l.done(err)
	}
	if err := l.environment(s.Env); err != nil {
		return l.done(err)
	}
	if found {
		err = l.file(file)
	}
	return l.done(err)
}

// fileOf finds the image's file.
func fileOf(s Sources) (path string, explicit bool, err error) {
	for i, arg := range s.Args {
		if v, ok := strings.CutPrefix(arg, "--config="); ok && v != "" {
			return v, true, nil
		}
		if arg != "--config" && arg != "-c" {
			continue
		}
		if i+1 == len(s.Args) || s.Args[i+1] == "" {
			return "", false, fmt.Errorf("%s: no file named: %w", arg, errdefs.ErrInvalidArgument)
		}
		return s.Args[i+1], true, nil
	}
	if s.File == "" {
		return ImagePath, false, nil
	}
	return s.File, false, nil
}

// fromFile reads the image's file over the defaults. It may be absent unless
// somebody named it.
func fromFile(path string, mustExist bool) (c Config, found bool, err error) {
	l := loader{config: Default()}
	err = l.file(path)
	if errors.Is(err, fs.ErrNotExist) && !mustExist {
		return Default(), false, nil
	}
	return l.config, err == nil, err
}

func trustsHost(image Config, teePresent func() bool) bool {
	if image.TrustCmdline {
		return true
	}
	return image.Attestation.TEE == SampleTEE && teePresent != nil && !teePresent()
}

// loader gathers settings from one source after the other.
type loader struct {
	config  Config
	report  Report
	ignored map[string]bool // guarded keys that were noted
}

func (l *loader) file(path string) error {
	text, err := readFile(path)
	if err != nil {
		return err
	}
	unknown, err := apply(&l.config, text, ownFile)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(unknown) > 0 {
		return fmt.Errorf("%s: unknown key %.64q: %w", path, unknown[0], errdefs.ErrInvalidArgument)
	}
	return nil
}

// cmdline reads the kernel command line. It reports whether a file that is
// named there replaced everything.
func (l *loader) cmdline(line string) (replaced bool, err error) {
	keys := map[string]Key{}
	for _, k := range Keys() {
		if k.Cmdline != "" {
			keys[k.Cmdline] = k
		}
	}
	for word := range strings.FieldsSeq(line) {
		name, text, hasValue := strings.Cut(word, "=")
		k, ok := keys[name]
		if !ok || hasValue && k.NoValue || !hasValue && !k.Bare {
			if strings.HasPrefix(name, "agent.") {
				l.report.note(name, fromCmdline, "not a known key of this form")
			}
			continue
		}
		if !hasValue {
			text = "true"
		}
		if name == configFileKey && l.report.CmdlineTrusted {
			l.config = Default()
			l.report.File = text
			return true, l.file(text)
		}
		if err := l.host(k, fromCmdline, text); err != nil {
			return false, err
		}
	}
	return false, nil
}

func (l *loader) environment(env []string) error {
	for _, k := range Keys() {
		if k.Env == "" {
			continue
		}
		for _, entry := range env {
			text, ok := strings.CutPrefix(entry, k.Env+"=")
			if !ok {
				continue
			}
			if err := l.host(k, fromEnv, text); err != nil {
				return err
			}
		}
	}
	return nil
}

// host takes one setting from a source that the host can reach.
func (l *loader) host(k Key, source, text string) error {
	if k.guards(text) && !l.report.CmdlineTrusted {
		if !l.ignored[k.name()] {
			l.ignored[k.name()] = true
			l.report.Ignored++
			l.report.note(k.name(), source, "only the image may set this")
		}
		return nil
	}
	err := k.value.text(&l.config, text)
	if errors.Is(err, errBounds) {
		l.report.note(k.name(), source, "out of bounds")
		return nil
	}
	if err != nil && source == fromEnv {
		l.report.note(k.name(), source, "malformed")
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", source, k.name(), err)
	}
	return nil
}

// done settles what depends on several keys.
func (l *loader) done(err error) (Config, Report, error) {
	if err != nil {
		return Config{}, l.report, err
	}
	c := &l.config
	if c.hostImagePolicy != "" && !c.hostImageVerify {
		l.report.note("image_policy_file", "configuration", "enable_signature_verification is not set")
	}
	if c.hostImagePolicy != "" && c.hostImageVerify && c.Image.PolicyURI == "" {
		c.Image.PolicyURI = c.hostImagePolicy
	}
	c.hostImagePolicy, c.hostImageVerify = "", false
	if c.KBC.URL != "" && c.Attestation.KBS.URL != "" && c.KBC.URL != c.Attestation.KBS.URL {
		l.report.note("attestation.token_configs.kbs.url", "configuration", "kbc.url names another broker, which is shown the token of this one")
	}
	return *c, l.report, nil
}
