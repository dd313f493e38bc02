package evidencetest

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// TSM behaves as configfs-tsm: entries get their attributes when they are
// made, and without a driver none can be made. It is safe for concurrent use.
type TSM struct {
	Provider string // name of the driver; "" when none is registered

	mu      sync.Mutex // guards made and entries
	made    int
	entries map[string]bool
}

// MkdirTemp makes an entry.
func (f *TSM) MkdirTemp() (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Provider == "" {
		return "", &os.PathError{Op: "mkdir", Path: "report", Err: unix.ENXIO}
	}
	if f.entries == nil {
		f.entries = map[string]bool{}
	}
	f.made++
	dir := fmt.Sprint("entry", f.made)
	f.entries[dir] = true
	return dir, nil
}

// ReadAttr reads an attribute of an entry that exists.
func (f *TSM) ReadAttr(dir, name string, limit int) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.entries[dir] || name != "provider" {
		return nil, &os.PathError{Op: "open", Path: dir + "/" + name, Err: unix.ENOENT}
	}
	text := []byte(f.Provider + "\n")
	return text[:min(len(text), limit)], nil
}

// Remove removes an entry.
func (f *TSM) Remove(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.entries[dir] {
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
