package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// reserve adds the pages of a hugetlbfs storage to the pool of their size and
// returns what takes them away again. The kernel gives fewer than it is asked
// for when memory is fragmented; that is an error, because a workload would
// otherwise die by SIGBUS later.
func (e *ephemeral) reserve(s Storage) (giveBack func() error, err error) {
	pageSize, err := byteOption(s, "pagesize")
	if err != nil {
		return nil, err
	}
	size, err := byteOption(s, "size")
	if err != nil {
		return nil, err
	}
	// Pools are named by kB; see Documentation/admin-guide/mm/hugetlbpage.rst.
	pool := filepath.Join(e.sys, "kernel/mm/hugepages", fmt.Sprintf("hugepages-%dkB", pageSize/1024), "nr_hugepages")
	pages := int64(size / pageSize)
	if err := e.grow(pool, pages); err != nil {
		return nil, fmt.Errorf("reserve %d pages of %d bytes: %w", pages, pageSize, err)
	}
	return func() error { return e.grow(pool, -pages) }, nil
}

// grow changes the size of a pool, or leaves it as it was.
func (e *ephemeral) grow(pool string, by int64) error {
	e.pages.Lock()
	defer e.pages.Unlock()
	before, err := readCount(pool)
	if err != nil {
		return err
	}
	want := max(before+by, 0)
	if err := writeCount(pool, want); err != nil {
		return err
	}
	got, err := readCount(pool)
	if err != nil {
		return err
	}
	if got < want {
		return undone(fmt.Errorf("the guest has %d of %d: %w", got, want, errdefs.ErrResourceExhausted), writeCount(pool, before))
	}
	return nil
}

func readCount(path string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read page count: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read page count: %w", err)
	}
	return n, nil
}

func writeCount(path string, n int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return fmt.Errorf("write page count: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString(strconv.FormatInt(n, 10)); err != nil {
		return fmt.Errorf("write page count: %w", err)
	}
	return nil
}

// byteOption reads a size in plain bytes, as the shim writes it.
func byteOption(s Storage, key string) (uint64, error) {
	text, _ := optionValue(s, key)
	n, err := strconv.ParseUint(text, 10, 62)
	if err != nil || n < 1024 {
		return 0, fmt.Errorf("mount option %s=%.20q is no size in bytes: %w", key, text, errdefs.ErrInvalidArgument)
	}
	return n, nil
}
