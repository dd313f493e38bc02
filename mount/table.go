package mount

import (
	"fmt"
	"io"
	"os"

	"github.com/moby/sys/mountinfo"
)

// Entry is one line of the mount table of this process.
type Entry struct {
	ID     int
	Target string
	Source string
	FSType string
}

// Table returns the mounts at or below prefix, in the order they were made.
func Table(prefix string) ([]Entry, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	defer f.Close()
	return parseTable(f, prefix)
}

func parseTable(r io.Reader, prefix string) ([]Entry, error) {
	infos, err := mountinfo.GetMountsFromReader(r, mountinfo.PrefixFilter(prefix))
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	out := make([]Entry, 0, len(infos))
	for _, i := range infos {
		out = append(out, Entry{i.ID, i.Mountpoint, i.Source, i.FSType})
	}
	return out, nil
}
