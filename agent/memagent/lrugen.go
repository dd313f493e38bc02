package memagent

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lruFile is the kernel's list of generations and takes commands
// (Documentation/admin-guide/mm/multigen_lru.rst).
const lruFile = "lru_gen"

// lru is the open file of the multi-generational LRU.
type lru struct {
	dir *os.File // debugfs, mounted nowhere, or its directory
}

// offersLRU tells whether the kernel has the LRU at all and it is switched on.
func offersLRU(p Paths) error {
	l, err := openLRU(p)
	if err != nil {
		return err
	}
	return l.Close()
}

// openLRU opens debugfs where it is mounted, else an instance that is seen by
// nobody else, so that containers do not find it.
func openLRU(p Paths) (*lru, error) {
	enabled, err := os.ReadFile(filepath.Join(p.Sys, "kernel/mm/lru_gen/enabled"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("this kernel has no multi-generational LRU: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("look for the multi-generational LRU: %w", err)
	}
	if on, err := strconv.ParseUint(strings.TrimSpace(string(enabled)), 0, 32); err != nil || on&1 == 0 {
		return nil, fmt.Errorf("the multi-generational LRU is off (%s): %w", strings.TrimSpace(string(enabled)), os.ErrNotExist)
	}
	dir := filepath.Join(p.Sys, "kernel/debug")
	if _, err := os.Stat(filepath.Join(dir, lruFile)); err == nil {
		f, err := os.Open(dir)
		if err != nil {
			return nil, fmt.Errorf("open debugfs: %w", err)
		}
		return &lru{f}, nil
	}
	l, err := mountDebugFS()
	if err != nil {
		return nil, fmt.Errorf("mount debugfs: %w", err)
	}
	f, err := l.open(unix.O_RDWR)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("this kernel does not show its generations: %w", err), l.Close())
	}
	return l, f.Close()
}

func mountDebugFS() (*lru, error) {
	fs, err := unix.Fsopen("debugfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &lru{os.NewFile(uintptr(fd), "debugfs")}, nil
}

func (l *lru) Close() error { return l.dir.Close() }

func (l *lru) open(flags int) (*os.File, error) {
	fd, err := unix.Openat(int(l.dir.Fd()), lruFile, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open lru_gen: %w", err)
	}
	return os.NewFile(uintptr(fd), lruFile), nil
}

// group is one cgroup on one node.
type group struct {
	memcg uint64
	path  string
	node  uint64
	gens  []generation // oldest first
}

// generation counts pages of one age.
type generation struct {
	seq, anon, file uint64
}

func (g group) oldest() generation { return g.gens[0] }
func (g group) newest() generation { return g.gens[len(g.gens)-1] }

// groups reads the list.
func (l *lru) groups() ([]group, error) {
	f, err := l.open(unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseGroups(f)
}

// parseGroups reads
//
//	memcg     1 /system.slice
//	 node     0
//	        120       4000        300         12
//	        121         10          0          9
//
// where the columns are number, age in milliseconds, anonymous and file pages.
// Counts that a race made negative are 0.
func parseGroups(r io.Reader) ([]group, error) {
	var all []group
	var now group
	flush := func() {
		if len(now.gens) > 0 {
			all = append(all, now)
		}
		now.gens = nil
	}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		switch {
		case len(words) >= 2 && words[0] == "memcg":
			flush()
			now = group{memcg: number(words[1])}
			if len(words) > 2 {
				now.path = words[2]
			}
		case len(words) == 2 && words[0] == "node":
			flush()
			now.node = number(words[1])
		case len(words) == 4:
			now.gens = append(now.gens, generation{number(words[0]), number(words[2]), number(words[3])})
		case len(words) > 0:
			return nil, fmt.Errorf("read lru_gen: line %.80q: %w", lines.Text(), os.ErrInvalid)
		}
	}
	flush()
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read lru_gen: %w", err)
	}
	return all, nil
}

func number(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64) // negative and absent counts are 0
	return n
}

// age begins a new generation, and looks at every page for whether it was used.
func (l *lru) age(g group, swap bool) error {
	return l.command("+ %d %d %d %d 1", g.memcg, g.node, g.newest().seq, bit(swap))
}

// evict reclaims up to pages of the oldest generation.
func (l *lru) evict(g group, swappiness, pages uint64) error {
	return l.command("- %d %d %d %d %d", g.memcg, g.node, g.oldest().seq, swappiness, pages)
}

func (l *lru) command(format string, args ...any) error {
	f, err := l.open(unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	command := fmt.Sprintf(format, args...)
	if _, err := f.WriteString(command); err != nil {
		return fmt.Errorf("tell lru_gen %q: %w", command, err)
	}
	return nil
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
