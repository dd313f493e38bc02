package image

import (
	"debug/elf"
	"fmt"
	"os/exec"
	"strings"
)

// Program returns what puts a program of the building machine at the same path
// of the guest, with the libraries and the dynamic linker that it needs. name is
// a path, or is looked up in PATH.
func Program(name string) ([]Addition, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("find program: %w", err)
	}
	add := []Addition{{Source: path, Target: path}}
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read program %s: %w", path, err)
	}
	defer f.Close()
	if f.Section(".interp") == nil {
		return add, nil
	}
	out, err := exec.Command("ldd", path).Output()
	if err != nil {
		return nil, fmt.Errorf("list libraries of %s: %w", path, err)
	}
	for word := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(word, "/") {
			add = append(add, Addition{Source: word, Target: word})
		}
	}
	return add, nil
}
