package config

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/coffer-cc/coffer/evidence/initdata"
)

// maxFile bounds a file. Certificates and an image policy fit in many times.
const maxFile = 128 << 10

// readFile reads a configuration file of bounded size.
func readFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return string(text), nil
}

// dialect names the keys of one kind of file: which of a key's spellings
// counts in it.
type dialect func(Key) string

func ownFile(k Key) string { return k.File }
func aaFile(k Key) string  { return k.AA }
func cdhFile(k Key) string { return k.CDH }

// apply decodes text and puts what it says into c, all of it or nothing. It
// returns the names of keys that the dialect does not have.
func apply(c *Config, text string, in dialect) (unknown []string, err error) {
	top, err := initdata.DecodeTOML([]byte(text), maxFile)
	if err != nil {
		return nil, err
	}
	next := *c
	for _, k := range Keys() {
		name := in(k)
		if name == "" {
			continue
		}
		v, ok := lookup(top, name)
		if !ok {
			continue
		}
		if err := k.value.tree(&next, v); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	*c = next
	return leftOver(top, in), nil
}

func lookup(top map[string]any, name string) (any, bool) {
	var v any = top
	for part := range strings.SplitSeq(name, ".") {
		t, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = t[part]; !ok {
			return nil, false
		}
	}
	return v, true
}

// leftOver lists what a decoded file holds beyond the keys of its dialect,
// also what has the name of a table and is none.
func leftOver(top map[string]any, in dialect) []string {
	leaf, above, lists := names(in)
	var out []string
	walk("", top, func(name string, v any) (deeper bool) {
		if leaf[name] {
			return false
		}
		_, isTable := v.(map[string]any)
		if above[name] && (isTable || lists[name]) {
			return true
		}
		out = append(out, name)
		return false
	})
	slices.Sort(out)
	return slices.Compact(out)
}

// names returns the names of a dialect: those of values, those of the tables
// above them, and those that may also be lists of tables.
func names(in dialect) (leaf, above, lists map[string]bool) {
	leaf, above, lists = map[string]bool{}, map[string]bool{"": true}, map[string]bool{}
	for _, k := range Keys() {
		name := in(k)
		if name == "" {
			continue
		}
		leaves := []string{name}
		if n, ok := k.value.(nested); ok {
			leaves = nil
			for _, below := range n.names() {
				leaves = append(leaves, name+"."+below)
			}
		}
		for _, l := range leaves {
			leaf[l] = true
			for i, c := range l {
				if c == '.' {
					above[l[:i]] = true
					lists[l[:i]] = i >= len(name)
				}
			}
		}
	}
	return leaf, above, lists
}

// walk visits tables and what they hold, as long as visit wants to go deeper.
func walk(name string, v any, visit func(name string, v any) bool) {
	if !visit(name, v) {
		return
	}
	switch v := v.(type) {
	case map[string]any:
		for child, v := range v {
			walk(strings.TrimPrefix(name+"."+child, "."), v, visit)
		}
	case []map[string]any:
		for _, t := range v {
			walk(name, t, visit)
		}
	case []any:
		for _, t := range v {
			walk(name, t, visit)
		}
	}
}
