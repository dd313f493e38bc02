package mount

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
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

// tableWait is how long one wait for a change of a mount table takes before ctx
// is looked at, in milliseconds.
const tableWait = 100

// WaitMounted waits until something is mounted at exactly target in the mount
// namespace of a process, as that process sees it.
func WaitMounted(ctx context.Context, pid int, target string) error {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return fmt.Errorf("read mount table: %w", err)
	}
	defer f.Close()
	for {
		// What is mounted after this read wakes the poll, proc_pid_mountinfo(5).
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("read mount table: %w", err)
		}
		table, err := parseTable(f, target)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(table, func(e Entry) bool { return e.Target == target }) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait for a mount at %s: %w", target, context.Cause(ctx))
		}
		poll := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(poll, tableWait); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for a mount: %w", err)
		}
	}
}
