package config

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Bounds of lists in files.
const maxItems = 256

// nested is a value made of tables; names lists what they may hold, so that
// other keys in them are reported like other keys elsewhere.
type nested interface {
	names() []string
}

// tables takes an array of tables in the two forms the decoder has for it.
func tables(v any) ([]map[string]any, error) {
	if ts, ok := v.([]map[string]any); ok && len(ts) <= maxItems {
		return ts, nil
	}
	items, ok := v.([]any)
	if !ok || len(items) > maxItems {
		return nil, malformed("not a list of at most %d tables", maxItems)
	}
	ts := make([]map[string]any, 0, len(items))
	for _, item := range items {
		t, ok := item.(map[string]any)
		if !ok {
			return nil, malformed("not a list of tables")
		}
		ts = append(ts, t)
	}
	return ts, nil
}

func texts(v any, max int) ([]string, error) {
	items, ok := v.([]any)
	if !ok || len(items) > maxItems {
		return nil, malformed("not a list of at most %d texts", maxItems)
	}
	out := make([]string, 0, len(items))
	for _, item := range items {
		s, ok := item.(string)
		if !ok || len(s) > max {
			return nil, malformed("not a list of texts of at most %d bytes", max)
		}
		out = append(out, s)
	}
	return out, nil
}

// textIn reads a text field; absent is empty.
func textIn(t map[string]any, name string) (string, error) {
	v, ok := t[name]
	if !ok {
		return "", nil
	}
	s, ok := v.(string)
	if !ok || len(s) > maxString {
		return "", malformed("%s is not a text of at most %d bytes", name, maxString)
	}
	return s, nil
}

// boolIn reads a boolean field; absent is false.
func boolIn(t map[string]any, name string) (bool, error) {
	v, ok := t[name]
	if !ok {
		return false, nil
	}
	b, ok := v.(bool)
	if !ok {
		return false, malformed("%s is neither true nor false", name)
	}
	return b, nil
}

// list is a list of texts.
type list struct {
	at  func(*Config) *[]string
	max int
}

func (list) text(*Config, string) error { return malformed("belongs in a file") }

func (l list) tree(c *Config, v any) error {
	ts, err := texts(v, l.max)
	if err == nil {
		*l.at(c) = ts
	}
	return err
}

func (l list) show(*Config) string { return "" }
func (l list) kind() string        { return "list of texts" }

// cids is a list of vsock addresses.
type cids struct{}

func (cids) text(*Config, string) error { return malformed("belongs in a file") }

func (cids) tree(c *Config, v any) error {
	items, ok := v.([]any)
	if !ok || len(items) > maxItems {
		return malformed("not a list of at most %d numbers", maxItems)
	}
	out := make([]uint32, 0, len(items))
	for _, item := range items {
		i, ok := item.(int64)
		if !ok || i < 0 || i >= math.MaxUint32 {
			return malformed("not a list of vsock addresses")
		}
		out = append(out, uint32(i))
	}
	c.Server.PeerCIDs = out
	return nil
}

func (cids) show(*Config) string { return "" }
func (cids) kind() string        { return "list of numbers" }

// moment is a point in time, which a file writes as TOML does or as a string.
type moment struct{ at func(*Config) *time.Time }

func (m moment) text(c *Config, s string) error {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return malformed("not a time as in RFC 3339")
	}
	*m.at(c) = t
	return nil
}

func (m moment) tree(c *Config, v any) error {
	switch v := v.(type) {
	case time.Time:
		*m.at(c) = v
		return nil
	case string:
		return m.text(c, v)
	}
	return malformed("not a time as in RFC 3339")
}

func (m moment) show(c *Config) string {
	if m.at(c).IsZero() {
		return ""
	}
	return m.at(c).Format(time.RFC3339)
}
func (moment) kind() string { return "time as in RFC 3339" }

// allWord is the one word of a kernel parameter that means something here.
type allWord struct{}

func (allWord) text(c *Config, s string) error {
	if s == "all" {
		c.Cgroup.Unified = true
	}
	return nil
}

func (allWord) tree(*Config, any) error { return malformed("belongs on the command line") }
func (allWord) show(*Config) string     { return "" }
func (allWord) kind() string            { return "all" }

// credentials are the [[credentials]] of cdh.toml.
type credentials struct{}

func (credentials) names() []string { return []string{"resource_uri", "path"} }

func (credentials) text(*Config, string) error { return malformed("belongs in a file") }

func (credentials) tree(c *Config, v any) error {
	ts, err := tables(v)
	if err != nil {
		return err
	}
	out := make([]Credential, 0, len(ts))
	for i, t := range ts {
		uri, err1 := textIn(t, "resource_uri")
		path, err2 := textIn(t, "path")
		for _, err := range []error{err1, err2, isSource(uri), isCredentialPath(path)} {
			if err != nil {
				return fmt.Errorf("entry %d: %w", i+1, err)
			}
		}
		out = append(out, Credential{URI: uri, Path: path})
	}
	c.Credentials = out
	return nil
}

func (credentials) show(*Config) string { return "" }
func (credentials) kind() string        { return "list of tables: resource_uri, path" }

// registries is the table [image.registry_config].
type registries struct{}

func (registries) names() []string {
	return []string{"unqualified-search-registries",
		"registry.prefix", "registry.location", "registry.insecure", "registry.blocked",
		"registry.mirror.location", "registry.mirror.insecure"}
}

func (registries) text(*Config, string) error { return malformed("belongs in a file") }

func (registries) tree(c *Config, v any) error {
	t, ok := v.(map[string]any)
	if !ok {
		return malformed("not a table")
	}
	var out Registries
	if search, ok := t["unqualified-search-registries"]; ok {
		var err error
		if out.Search, err = texts(search, maxString); err != nil {
			return fmt.Errorf("unqualified-search-registries: %w", err)
		}
	}
	if rs, ok := t["registry"]; ok {
		ts, err := tables(rs)
		if err != nil {
			return fmt.Errorf("registry: %w", err)
		}
		for i, t := range ts {
			r, err := registry(t)
			if err != nil {
				return fmt.Errorf("registry %d: %w", i+1, err)
			}
			out.Registry = append(out.Registry, r)
		}
	}
	c.Image.Registries = out
	return nil
}

func registry(t map[string]any) (r Registry, err error) {
	var errs [4]error
	r.Prefix, errs[0] = textIn(t, "prefix")
	r.Location, errs[1] = textIn(t, "location")
	r.Insecure, errs[2] = boolIn(t, "insecure")
	r.Blocked, errs[3] = boolIn(t, "blocked")
	if i := slices.IndexFunc(errs[:], func(e error) bool { return e != nil }); i >= 0 {
		return Registry{}, errs[i]
	}
	if r.Prefix == "" && r.Location == "" {
		return Registry{}, malformed("neither prefix nor location")
	}
	mirrors, ok := t["mirror"]
	if !ok {
		return r, nil
	}
	ts, err := tables(mirrors)
	if err != nil {
		return Registry{}, fmt.Errorf("mirror: %w", err)
	}
	for _, t := range ts {
		location, err1 := textIn(t, "location")
		insecure, err2 := boolIn(t, "insecure")
		if err1 != nil || err2 != nil || location == "" {
			return Registry{}, malformed("mirror needs a location, and insecure is a boolean")
		}
		r.Mirrors = append(r.Mirrors, Mirror{Location: location, Insecure: insecure})
	}
	return r, nil
}

func (registries) show(*Config) string { return "" }
func (registries) kind() string        { return "tables as in registries.conf" }
