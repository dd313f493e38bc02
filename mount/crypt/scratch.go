package crypt

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence/secret"
)

// SectorSize is that of an encrypted device: one authentication tag for each.
const SectorSize = 4096

const (
	xtsKey  = 64 // AES-256, twice
	hmacKey = 32
	tagSize = 32 // of HMAC-SHA-256
	// Sectors of dm-integrity's superblock, and where in it the number of
	// sectors stands that it provides (drivers/md/dm-integrity.c, struct
	// superblock).
	integritySuperblock = 8
	integrityProvided   = 16
)

// OpenScratch encrypts a device under a key that exists nowhere but in the
// kernel, so that what was on it is lost, and what will be is when the device
// is removed or the guest ends. With integrity each sector carries a tag, and
// one that the host changed cannot be read; it can still put an older sector of
// the same place back. Sectors that were never written cannot be read either,
// but for those that the making of a file system looks at. The caller removes
// the device.
func (m *Mapper) OpenScratch(ctx context.Context, node string, integrity bool) (*Device, error) {
	fail := func(err error) (*Device, error) { return nil, fmt.Errorf("encrypt device %q: %w", node, err) }
	device, err := number(node)
	if err != nil {
		return fail(err)
	}
	f, err := os.OpenFile(node, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return fail(err)
	}
	all, err := size(f)
	if err == nil && all < minScratch {
		err = fmt.Errorf("%d bytes are less than %d: %w", all, minScratch, errdefs.ErrInvalidArgument)
	}
	if err == nil && integrity {
		err = wipeSuperblock(f)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fail(err)
	}
	if !integrity {
		d, err := m.openCrypt(device, all/SectorSize*(SectorSize/512), cipher{"aes-xts-plain64", xtsKey, "1 sector_size:4096"})
		if err != nil {
			return fail(err)
		}
		return d, nil
	}
	d, err := m.openAuthenticated(ctx, node, device)
	if err != nil {
		return fail(err)
	}
	return d, nil
}

// minScratch leaves room for a file system next to the tags.
const minScratch = 4 << 20

// openAuthenticated stacks dm-crypt on dm-integrity, which keeps the tags.
func (m *Mapper) openAuthenticated(ctx context.Context, node, device string) (*Device, error) {
	below, sectors, err := m.openIntegrity(node, device)
	if err != nil {
		return nil, err
	}
	lower, err := number(below.Node)
	if err != nil {
		return nil, errors.Join(err, below.Remove())
	}
	d, err := m.openCrypt(lower, sectors, cipher{"capi:authenc(hmac(sha256),xts(aes))-plain64", hmacKey + xtsKey,
		fmt.Sprintf("2 integrity:%d:aead sector_size:%d", tagSize, SectorSize)})
	if err != nil {
		return nil, errors.Join(err, below.Remove())
	}
	d.below = below
	if err := fillProbed(ctx, d.Node); err != nil {
		return nil, errors.Join(err, d.Remove())
	}
	return d, nil
}

// openCrypt makes a dm-crypt device with a key that is forgotten here.
func (m *Mapper) openCrypt(device string, sectors uint64, c cipher) (*Device, error) {
	key := make(secret.Bytes, c.keySize)
	defer key.Wipe()
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	// Of this size at once, so that no copy of the key is left behind.
	params := make(secret.Bytes, 0, 256+2*c.keySize)
	defer func() { params[:cap(params)].Wipe() }()
	params = append(append(params, c.spec...), ' ')
	params = hex.AppendEncode(params, key)
	params = fmt.Appendf(params, " 0 %s 0 %s", device, c.options)
	return m.create(table{target: "crypt", sectors: sectors, params: params})
}

// cipher is in the words of the crypt target, see
// Documentation/admin-guide/device-mapper/dm-crypt.rst.
type cipher struct {
	spec    string
	keySize int
	options string
}

// openIntegrity formats the device: dm-integrity does so by itself when it finds
// zeroes, and then tells how much it provides. Without a journal a crash may
// part a sector from its tag, but nothing survives a crash here.
func (m *Mapper) openIntegrity(node, device string) (*Device, uint64, error) {
	t := table{target: "integrity", sectors: integritySuperblock,
		params: fmt.Appendf(nil, "%s 0 %d D 1 block_size:%d", device, tagSize, SectorSize)}
	d, err := m.create(t)
	if err != nil {
		return nil, 0, err
	}
	if err := m.remove(d.name); err != nil {
		return nil, 0, err
	}
	if t.sectors, err = provided(node); err != nil {
		return nil, 0, err
	}
	d, err = m.create(t)
	return d, t.sectors, err
}

// wipeSuperblock makes dm-integrity format the device anew.
func wipeSuperblock(f *os.File) error {
	if _, err := f.WriteAt(make([]byte, integritySuperblock*512), 0); err != nil {
		return fmt.Errorf("wipe superblock: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("wipe superblock: %w", err)
	}
	return nil
}

// provided reads from the superblock how many sectors dm-integrity provides.
func provided(node string) (uint64, error) {
	f, err := os.Open(node)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	// dm-integrity wrote past the page cache.
	if err := unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0); err != nil {
		return 0, fmt.Errorf("drop cached superblock: %w", err)
	}
	all, err := size(f)
	if err != nil {
		return 0, err
	}
	var b [integritySuperblock * 512]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return 0, fmt.Errorf("read superblock: %w", err)
	}
	return parseProvided(b[:], all)
}

// parseProvided checks what the host's disk says against its size.
func parseProvided(superblock []byte, size uint64) (uint64, error) {
	if len(superblock) < integrityProvided+8 || string(superblock[:8]) != "integrt\x00" {
		return 0, fmt.Errorf("dm-integrity did not format the device: %w", errdefs.ErrUnavailable)
	}
	n := binary.LittleEndian.Uint64(superblock[integrityProvided:])
	if n == 0 || n%(SectorSize/512) != 0 || n > size/512 {
		return 0, fmt.Errorf("dm-integrity provides %d sectors of a device with %d: %w", n, size/512, errdefs.ErrUnavailable)
	}
	return n, nil
}
