// Package tsm asks the configfs-tsm interface of the kernel for reports of the
// platform (Documentation/ABI/testing/configfs-tsm-report). Making a directory
// there makes an entry; its attributes appear by themselves:
//
//	mkdir entry ▸ write inblob ▸ read outblob, auxblob ▸ read generation ▸ rmdir
//
// Each write raises the generation. One that is higher than the writes made
// here means that somebody else wrote, and that the report may be theirs.
package tsm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// reportDir is where entries are made, below the root of the file system.
const reportDir = "sys/kernel/config/tsm/report"

// Bounds of what is read from attributes. A quote has some five kilobytes, a
// table of certificates at most sixteen.
const (
	maxName = 64
	maxBlob = 64 << 10
)

// FS is what the package needs of configfs: a plain directory cannot stand in
// for it, since the attributes of a new entry come from the kernel.
type FS interface {
	MkdirTemp() (dir string, err error) // a fresh entry
	// ReadAttr reads at most max bytes.
	ReadAttr(dir, name string, max int) ([]byte, error)
	WriteAttr(dir, name string, value []byte) error
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

// WriteAttr writes the value with one call: configfs takes each for a whole value.
func (d osFS) WriteAttr(dir, name string, value []byte) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(value)
	return errors.Join(err, f.Close())
}

// Provider returns the name of the driver that answers here, such as tdx_guest
// or sev_guest. Without the interface or a driver behind it the error says
// which step failed.
func Provider(fs FS) (name string, err error) {
	err = withEntry(fs, func(dir string) error {
		name, err = provider(fs, dir)
		return err
	})
	return name, err
}

// Request is what a report is asked for.
type Request struct {
	Provider string // the driver that must answer
	In       [64]byte
	Aux      bool // also the auxiliary blob, where the driver has one
}

// Report is the driver's answer. Aux is empty where there is none.
type Report struct {
	Out, Aux []byte
}

// attempts bounds how often a report is asked for again after somebody else
// wrote into the entry.
const attempts = 3

// Get asks for a report in an entry of its own. Another driver than the named
// one wraps errdefs.ErrFailedPrecondition; an entry that others keep writing
// into wraps errdefs.ErrAborted. The call lasts as long as the host lets it.
func Get(fs FS, r Request) (Report, error) {
	var out Report
	for try := 1; ; try++ {
		err := withEntry(fs, func(dir string) (err error) {
			out, err = get(fs, dir, r)
			return err
		})
		if err == nil || !errdefs.IsAborted(err) || try == attempts {
			return out, err
		}
	}
}

func get(fs FS, dir string, r Request) (out Report, err error) {
	name, err := provider(fs, dir)
	if err != nil {
		return out, err
	}
	if name != r.Provider {
		return out, fmt.Errorf("reports come from %q and not from %s: %w", name, r.Provider, errdefs.ErrFailedPrecondition)
	}
	if err := fs.WriteAttr(dir, "inblob", r.In[:]); err != nil {
		return out, fmt.Errorf("write report data: %w", err)
	}
	if out.Out, err = blob(fs, dir, "outblob"); err != nil {
		return out, err
	}
	if r.Aux {
		out.Aux, err = blob(fs, dir, "auxblob")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return out, err
		}
	}
	text, err := fs.ReadAttr(dir, "generation", maxName)
	if err != nil {
		return out, fmt.Errorf("read generation of report: %w", err)
	}
	// One write was made: the report data.
	if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err != nil || n != 1 {
		return out, fmt.Errorf("report entry was written by somebody else: %w", errdefs.ErrAborted)
	}
	return out, nil
}

func blob(fs FS, dir, name string) ([]byte, error) {
	b, err := fs.ReadAttr(dir, name, maxBlob+1)
	if err != nil {
		return nil, fmt.Errorf("read %s of report: %w", name, err)
	}
	if len(b) > maxBlob {
		return nil, fmt.Errorf("%s of report exceeds %d bytes: %w", name, maxBlob, errdefs.ErrInvalidArgument)
	}
	return b, nil
}

func provider(fs FS, dir string) (string, error) {
	text, err := fs.ReadAttr(dir, "provider", maxName)
	if err != nil {
		return "", fmt.Errorf("read provider of reports: %w", err)
	}
	return strings.TrimRight(string(text), "\n"), nil
}

// withEntry makes an entry for the length of the call.
func withEntry(fs FS, do func(dir string) error) error {
	dir, err := fs.MkdirTemp()
	if err != nil {
		return fmt.Errorf("make report entry: %w", err)
	}
	err = do(dir)
	if rerr := fs.Remove(dir); rerr != nil {
		err = errors.Join(err, fmt.Errorf("remove report entry: %w", rerr))
	}
	return err
}
