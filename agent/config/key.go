package config

// Trust says from whom a key is accepted.
type Trust int

const (
	// Host keys are accepted from the command line and the environment.
	Host Trust = iota
	// Guarded keys weaken protection or redirect trust. The command line and
	// the environment set them only in a guest that trusts them.
	Guarded
	// Measured keys stand in the image's file or in initdata and nowhere else.
	Measured
)

// Key is one setting: its spellings, whom it is accepted from, and what it
// does. Reading and documentation both come from it.
type Key struct {
	File    string // dotted name in the image's file
	Cmdline string // word on the kernel command line
	Bare    bool   // the word counts alone, without a value
	NoValue bool   // the word counts only alone
	Env     string
	AA      string // dotted name in initdata's aa.toml
	CDH     string // dotted name in initdata's cdh.toml
	Trust   Trust
	// Weakens narrows Guarded to some values; nil means all of them.
	Weakens func(text string) bool
	Doc     string

	value value
}

// name is what errors and warnings call the key.
func (k Key) name() string {
	if k.Cmdline != "" {
		return k.Cmdline
	}
	return k.File
}

// guards reports whether the host needs the image's consent to set text.
func (k Key) guards(text string) bool {
	return k.Trust != Host && (k.Weakens == nil || k.Weakens(text))
}

// group is a part of the table with a heading of its own.
type group struct {
	title string
	keys  []Key
}

func groups() []group {
	return []group{
		{"Image only", imageKeys()},
		{"Agent", agentKeys()},
		{"Timeouts", timeoutKeys()},
		{"Guest components", componentKeys()},
		{"Memory agent", memAgentKeys()},
		{"Attestation and key broker", attestationKeys()},
		{"Image pull", pullKeys()},
	}
}

// Keys returns the whole table in the order in which a file is applied: where
// two keys name one setting, the later one counts.
func Keys() []Key {
	var all []Key
	for _, g := range groups() {
		all = append(all, g.keys...)
	}
	return all
}
