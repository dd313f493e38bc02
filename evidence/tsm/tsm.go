// Package tsm reads the configfs-tsm interface of the kernel, in which a guest
// asks its platform for reports (Documentation/ABI/testing/configfs-tsm-report).
// Making a directory there makes an entry; its attributes appear by themselves.
package tsm

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// reportDir is where entries are made, below the root of the file system.
const reportDir = "sys/kernel/config/tsm/report"

// maxName bounds what is read from the provider attribute.
const maxName = 64

// FS is what the package needs of configfs: a plain directory cannot stand in
// for it, since the attributes of a new entry come from the kernel.
type FS interface {
	MkdirTemp() (dir string, err error) // a fresh entry
	ReadAttr(dir, name string, max int) ([]byte, error)
	Remove(dir string) error
}

// OS is the real configfs below root, which is "/" but in tests.
func OS(root string) FS { return osFS(filepath.Join(root, reportDir)) }

type osFS string

func (d osFS) MkdirTemp() (string, error) { return os.MkdirTemp(string(d), "coffer-") }

func (d osFS) Remove(dir string) error { return os.Remove(dir) }

func (d osFS) ReadAttr(dir, name string, max int) ([]byte, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(max)))
}

// Provider returns the name of the driver that answers here, such as tdx_guest
// or sev_guest. It makes an entry, asks it and removes it again. Without the
// interface or a driver behind it the error says which step failed.
func Provider(fs FS) (name string, err error) {
	dir, err := fs.MkdirTemp()
	if err != nil {
		return "", fmt.Errorf("make report entry: %w", err)
	}
	defer func() {
		if rerr := fs.Remove(dir); rerr != nil && err == nil {
			err = fmt.Errorf("remove report entry: %w", rerr)
		}
	}()
	text, err := fs.ReadAttr(dir, "provider", maxName)
	if err != nil {
		return "", fmt.Errorf("read provider of reports: %w", err)
	}
	return strings.TrimRight(string(text), "\n"), nil
}
