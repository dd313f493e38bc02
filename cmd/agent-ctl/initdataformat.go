package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/coffer-cc/coffer/evidence/initdata"
)

// encodeInitdata writes the entries in order of their names, so that equal
// entries give an equal digest.
func encodeInitdata(algorithm string, data map[string]string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "version = \"0.1.0\"\nalgorithm = %s\n\n[data]\n", strconv.Quote(algorithm))
	for _, name := range slices.Sorted(maps.Keys(data)) {
		fmt.Fprintf(&b, "%s = %s\n", basicString(name), tomlString(data[name]))
	}
	return []byte(b.String())
}

// tomlString keeps text readable where a literal string can carry it. TOML
// drops the newline right after the opening quotes.
func tomlString(s string) string {
	literal := !strings.Contains(s, "'''") && !strings.HasSuffix(s, "'")
	for _, r := range s {
		literal = literal && (r == '\n' || r == '\t' || r >= ' ' && r != 0x7f)
	}
	if literal {
		return "'''\n" + s + "'''"
	}
	return basicString(s)
}

func basicString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func pack(format string, raw []byte) ([]byte, error) {
	switch format {
	case "toml":
		return raw, nil
	case "disk":
		return initdata.EncodeDisk(raw)
	case "annotation":
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(raw); err != nil {
			return nil, err
		}
		if err := z.Close(); err != nil {
			return nil, err
		}
		return []byte(base64.StdEncoding.EncodeToString(b.Bytes()) + "\n"), nil
	}
	return nil, usagef("--format %q: must be toml, disk or annotation", format)
}

// unpack recognises the three formats by their content.
func unpack(file []byte) ([]byte, error) {
	raw, err := initdata.DecodeDisk(bytes.NewReader(file), initdata.MaxSize)
	if !errors.Is(err, initdata.ErrNoMagic) {
		return raw, err
	}
	zipped, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(file)))
	if err != nil {
		return file, nil // TOML is never base64: it has '='-signs in the middle
	}
	z, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		return nil, err
	}
	raw, err = io.ReadAll(io.LimitReader(z, initdata.MaxSize+1))
	if err == nil && len(raw) > initdata.MaxSize {
		err = fmt.Errorf("document is longer than %d bytes", initdata.MaxSize)
	}
	return raw, err
}
