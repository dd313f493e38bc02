package image

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// A Manifest says what an image was made of and what came out, without paths
// of the building machine: equal manifests mean equal images.
type Manifest struct {
	Kernel  Package `json:"kernel"`
	Inputs  []File  `json:"inputs"`
	Outputs []File  `json:"outputs"`
}

// A Package is a Debian package by name, version and checksum.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
}

// A File is an input by its role, or an output by its name.
type File struct {
	Name   string `json:"name"`
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"`
}

func (m *Manifest) input(name string, data []byte)  { m.Inputs = append(m.Inputs, file(name, data)) }
func (m *Manifest) output(name string, data []byte) { m.Outputs = append(m.Outputs, file(name, data)) }

func file(name string, data []byte) File {
	sum := sha256.Sum256(data)
	return File{name, len(data), hex.EncodeToString(sum[:])}
}

func (m *Manifest) encode() ([]byte, error) {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return append(text, '\n'), nil
}
