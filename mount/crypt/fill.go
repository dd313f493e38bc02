package crypt

import (
	"context"
	"fmt"
	"os"
)

// What the making of a file system reads before it has written it: signatures
// at both ends, and the page around each backup of ext4's superblock, which is
// written in part. A group of ext4 with blocks of 4 KiB has 128 MiB.
const (
	probedEnds  = 1 << 20
	ext4Group   = 128 << 20
	probedGroup = SectorSize
)

// fillProbed writes zeroes there, so that every sector has a tag. Writing the
// whole device would take minutes.
func fillProbed(ctx context.Context, node string) error {
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("fill device: %w", err)
	}
	defer f.Close()
	all, err := size(f)
	if err != nil {
		return err
	}
	zeroes := make([]byte, probedEnds)
	write := func(at, n uint64) error {
		if at >= all {
			return nil
		}
		if _, err := f.WriteAt(zeroes[:min(n, all-at)], int64(at)); err != nil {
			return fmt.Errorf("fill device: %w", err)
		}
		return ctx.Err()
	}
	for at := uint64(ext4Group); at < all; at += ext4Group {
		if err := write(at, probedGroup); err != nil {
			return err
		}
	}
	for _, at := range []uint64{0, all - min(all, probedEnds)} {
		if err := write(at, probedEnds); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("fill device: %w", err)
	}
	return nil
}
