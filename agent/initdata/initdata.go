// Package initdata finds the disk on which the host hands over the document of
// the pod's owner, and decides with the hardware whether it is genuine.
package initdata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence/initdata"
)

// maxDisks bounds how many disks are looked at. A guest has some tens.
const maxDisks = 1024

// Find returns the text of the document and the disk it came from. It looks at
// the virtio-blk and SCSI disks below devRoot, which is /dev but in tests; they
// must be there already, because nobody looks a second time. Two disks with a
// document are refused, since the host could otherwise choose between them by
// their order.
//
// Reading a disk cannot be interrupted. When ctx ends first, Find returns and
// leaves the reader behind; the guest does not survive that error for long.
func Find(ctx context.Context, devRoot string) (raw []byte, device string, err error) {
	type found struct {
		raw    []byte
		device string
		err    error
	}
	done := make(chan found, 1)
	go func() {
		raw, device, err := scan(ctx, devRoot)
		done <- found{raw, device, err}
	}()
	select {
	case f := <-done:
		return f.raw, f.device, f.err
	case <-ctx.Done():
		return nil, "", fmt.Errorf("look for initdata: %w", ctx.Err())
	}
}

func scan(ctx context.Context, devRoot string) (raw []byte, device string, err error) {
	disks, err := disks(devRoot)
	if err != nil {
		return nil, "", fmt.Errorf("look for initdata: %w", err)
	}
	for _, disk := range disks {
		if ctx.Err() != nil {
			return nil, "", ctx.Err()
		}
		text, err := read(disk)
		switch {
		case errors.Is(err, initdata.ErrNoMagic):
			continue
		case errors.Is(err, errdefs.ErrInvalidArgument): // it has the magic word
			return nil, "", fmt.Errorf("initdata on %s: %w", disk, err)
		case err != nil:
			slog.WarnContext(ctx, "disk is not readable", "device", disk, "error", err)
			continue
		case device != "":
			return nil, "", fmt.Errorf("initdata on %s and %s: %w", device, disk, errdefs.ErrFailedPrecondition)
		}
		raw, device = text, disk
	}
	if device == "" {
		return nil, "", fmt.Errorf("no disk carries initdata: %w", errdefs.ErrNotFound)
	}
	return raw, device, nil
}

// disks lists block devices that may carry a document, sorted by name.
func disks(devRoot string) ([]string, error) {
	entries, err := os.ReadDir(devRoot)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, "vd") && !strings.HasPrefix(name, "sd") {
			continue
		}
		if e.Type()&fs.ModeDevice == 0 || e.Type()&fs.ModeCharDevice != 0 {
			continue
		}
		out = append(out, filepath.Join(devRoot, name))
	}
	if len(out) > maxDisks {
		return nil, fmt.Errorf("more than %d disks: %w", maxDisks, errdefs.ErrFailedPrecondition)
	}
	return out, nil
}

func read(disk string) ([]byte, error) {
	f, err := os.OpenFile(disk, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Blocks are read ahead in large steps; the document is small.
	return initdata.DecodeDisk(io.LimitReader(f, 2*initdata.MaxSize), initdata.MaxSize)
}
