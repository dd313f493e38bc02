package storage

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/mount/crypt"
)

// protection is what device-mapper does for disks: it makes an empty one of the
// host's, a block emptyDir, ready for use, and verifies layers.
type protection struct {
	mapper    *crypt.Mapper
	load      func(ctx context.Context, modules ...string) // of the kernel
	integrity bool                                         // encrypted disks carry authentication tags
	mkfs      string                                       // program that makes ext4, a path or a name
	required  bool                                         // for a confidential guest, which takes no less
}

// wish is what driver options ask for.
type wish struct{ filesystem, encryption bool }

// Driver options of block storages.
const (
	optionFilesystem = "create_filesystem"
	optionKey        = "encryption_key="
	optionNote       = "io.katacontainers.volume" // for the host's own use
)

// parseWish reads the driver options. Encryption without a fresh file system is
// refused, because what the host put on the disk would be read in clear.
func parseWish(s Storage) (wish, error) {
	var w wish
	for _, d := range s.DriverOptions {
		switch {
		case d == optionFilesystem:
			w.filesystem = true
		case d == optionKey+"ephemeral":
			w.encryption = true
		case strings.HasPrefix(d, optionNote):
		default:
			return wish{}, fmt.Errorf("unknown driver option %.80q for driver %s: %w", d, s.Driver, errdefs.ErrInvalidArgument)
		}
	}
	switch {
	case w.encryption && !w.filesystem:
		return wish{}, fmt.Errorf("driver option %sephemeral goes with %s: %w", optionKey, optionFilesystem, errdefs.ErrInvalidArgument)
	case w.filesystem && s.FSType != "ext4":
		return wish{}, fmt.Errorf("driver option %s makes ext4, not %q: %w", optionFilesystem, s.FSType, errdefs.ErrInvalidArgument)
	}
	return w, nil
}

// allow holds a wish against what the guest requires: data that begins and ends
// with the pod must not be written to the host's disk in clear.
func (c protection) allow(w wish) error {
	if c.required && w.filesystem && !w.encryption {
		return fmt.Errorf("this guest is confidential: driver option %s goes with %sephemeral: %w", optionFilesystem, optionKey, errdefs.ErrPermissionDenied)
	}
	return nil
}

// allowLayers does the same for a root file system. A layer that nothing vouches
// for, or an upper one whose content the host has chosen, would replace what the
// others are verified for.
func (c protection) allowLayers(l *layers) error {
	if !c.required {
		return nil
	}
	if l.upper != nil {
		return fmt.Errorf("this guest is confidential: an upper layer on a disk of the host's: %w", errdefs.ErrPermissionDenied)
	}
	for _, one := range l.lower {
		if one.verity == nil {
			return fmt.Errorf("this guest is confidential: layer from %q without dm-verity: %w", clip(one.Source), errdefs.ErrPermissionDenied)
		}
	}
	return nil
}

// prepared is a disk to mount.
type prepared struct {
	node   string
	device *crypt.Device // nil when the node is the disk itself
}

func (p prepared) remove() error {
	if p.device == nil {
		return nil
	}
	return p.device.Remove()
}

// prepare does what is wished for, in the order encryption, file system.
func (c protection) prepare(ctx context.Context, node string, w wish) (prepared, error) {
	p := prepared{node: node}
	if !w.filesystem {
		return p, nil
	}
	program, err := findProgram(c.mkfs)
	if err != nil {
		return p, fmt.Errorf("driver option %s: %w", optionFilesystem, err)
	}
	if w.encryption {
		c.load(ctx, "dm_crypt", "dm_integrity", "authenc", "xts")
		d, err := c.mapper.OpenScratch(ctx, node, c.integrity)
		if err != nil {
			return p, err
		}
		p = prepared{d.Node, d}
	}
	if err := format(ctx, program, p.node); err != nil {
		return p, undone(err, p.remove())
	}
	return p, nil
}

// verify opens a device whose content the root hash vouches for.
func (c protection) verify(ctx context.Context, node string, v crypt.Verity) (*crypt.Device, error) {
	c.load(ctx, "dm_verity")
	return c.mapper.OpenVerity(node, v)
}

// findProgram looks where programs are. The first process of a guest has no
// PATH.
func findProgram(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("the guest has no %s: %w", name, errdefs.ErrNotImplemented)
}

// format makes an ext4 whose options are those of the reference: no journal,
// since a crash ends the data's life, and few inodes, which dm-integrity makes
// dear.
func format(ctx context.Context, program, node string) error {
	cmd := exec.CommandContext(ctx, program, "-q", "-F", "-O", "^has_journal", "-m", "0", "-i", "163840", "-I", "128", node)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("make file system: %w: %s", errors.Join(err, ctx.Err()), clip(strings.TrimSpace(string(out))))
	}
	return nil
}

// protected is a mount of a mapped device.
type protected struct {
	mounted
	device *crypt.Device
}

// Detach implements Volume.
func (p protected) Detach(ctx context.Context) error {
	if err := p.mounted.Detach(ctx); err != nil {
		return err
	}
	return p.device.Remove()
}
