package config

import "fmt"

// Initdata is the part of initdata that holds settings. An absent file is "".
type Initdata struct {
	AA  string // aa.toml
	CDH string // cdh.toml
}

// Merge puts the settings of the pod's owner over c. It says nothing of whether
// the initdata is genuine; the caller has to know that before. A key that is
// not known is a note and no error, because the owner's files are written for
// the reference guest; a malformed value is an errdefs.ErrInvalidArgument.
func Merge(c Config, d Initdata) (Config, Report, error) {
	l := loader{config: c}
	for _, f := range []struct {
		name, text string
		in         dialect
	}{
		{"aa.toml", d.AA, aaFile},
		{"cdh.toml", d.CDH, cdhFile},
	} {
		unknown, err := apply(&l.config, f.text, f.in)
		if err != nil {
			return Config{}, l.report, fmt.Errorf("initdata: %s: %w", f.name, err)
		}
		for _, key := range unknown {
			l.report.note(key, f.name, "not a known key")
		}
	}
	return l.done(nil)
}
