package evidencetest

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// TSM behaves as configfs-tsm: entries get their attributes when they are
// made, each write raises the generation, and without a driver no entry can be
// made. It is safe for concurrent use. Set the fields before its first use.
type TSM struct {
	Provider string // name of the driver; "" when none is registered
	// Sign makes the report and the auxiliary blob; without it none can be read.
	Sign func(in [64]byte) (out, aux []byte, err error)
	// Races is how many entries somebody else writes into as well.
	Races int

	mu      sync.Mutex // guards the rest
	made    int
	signed  int
	entries map[string]*entry
}

type entry struct {
	in         []byte
	generation int
	out, aux   []byte // once read, until the next write
}

// MkdirTemp makes an entry.
func (f *TSM) MkdirTemp() (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Provider == "" {
		return "", &os.PathError{Op: "mkdir", Path: "report", Err: unix.ENXIO}
	}
	if f.entries == nil {
		f.entries = map[string]*entry{}
	}
	f.made++
	dir := fmt.Sprint("entry", f.made)
	f.entries[dir] = &entry{}
	return dir, nil
}

// ReadAttr reads an attribute of an entry that exists.
func (f *TSM) ReadAttr(dir, name string, limit int) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.entries[dir]
	if e == nil {
		return nil, &os.PathError{Op: "open", Path: dir + "/" + name, Err: unix.ENOENT}
	}
	v, err := f.attrLocked(e, name)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: dir + "/" + name, Err: err}
	}
	return bytes.Clone(v[:min(len(v), limit)]), nil
}

func (f *TSM) attrLocked(e *entry, name string) ([]byte, error) {
	switch name {
	case "provider":
		return []byte(f.Provider + "\n"), nil
	case "generation":
		return []byte(strconv.Itoa(e.generation) + "\n"), nil
	case "outblob", "auxblob":
		if err := f.signLocked(e); err != nil {
			return nil, err
		}
		if name == "outblob" {
			return e.out, nil
		}
		return e.aux, nil
	}
	return nil, unix.ENOENT
}

// signLocked asks the platform once for each value of the report data.
func (f *TSM) signLocked(e *entry) (err error) {
	if e.out != nil {
		return nil
	}
	if len(e.in) != 64 || f.Sign == nil {
		return unix.EINVAL
	}
	if f.Races > 0 {
		f.Races--
		e.in = bytes.Repeat([]byte{0xee}, 64)
		e.generation++
	}
	f.signed++
	e.out, e.aux, err = f.Sign([64]byte(e.in))
	return err
}

// WriteAttr writes the report data, which have to be whole.
func (f *TSM) WriteAttr(dir, name string, value []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.entries[dir]
	switch {
	case e == nil:
		return &os.PathError{Op: "open", Path: dir + "/" + name, Err: unix.ENOENT}
	case name != "inblob" || len(value) != 64:
		return &os.PathError{Op: "write", Path: dir + "/" + name, Err: unix.EINVAL}
	}
	e.in, e.out, e.aux = bytes.Clone(value), nil, nil
	e.generation++
	return nil
}

// Remove removes an entry.
func (f *TSM) Remove(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.entries[dir] == nil {
		return &os.PathError{Op: "rmdir", Path: dir, Err: unix.ENOENT}
	}
	delete(f.entries, dir)
	return nil
}

// Entries counts the entries that were made and not removed.
func (f *TSM) Entries() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.entries)
}

// Signed counts how often the platform was asked for a report.
func (f *TSM) Signed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.signed
}
