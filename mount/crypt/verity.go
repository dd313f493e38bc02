package crypt

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/secret"
)

// Verity says how the content of a device is bound to its root hash. The hash
// tree lies on the same device, behind the data.
type Verity struct {
	RootHash   string // in hex
	Algorithm  string // sha256 or sha512
	Salt       string // in hex; empty for none
	BlockSize  uint64 // of data, in bytes
	HashSize   uint64 // of a block of the tree, in bytes
	HashOffset uint64 // where the data ends, in bytes
	HashType   uint32 // 1, or 0 for the format of Chrome OS
	// NoSuperblock means that the tree begins at HashOffset, without the block
	// in which veritysetup describes it. That block is never read: everything
	// in it is given here.
	NoSuperblock bool
}

// maxSalt is the kernel's limit in bytes (DM_VERITY_MAX_SALT_SIZE is larger on
// no version).
const maxSalt = 256

// superblockSize is what veritysetup writes before the tree.
const superblockSize = 512

// ParseVerity reads mount options with this prefix before each key: roothash,
// hashoffset, blocksize, hashsize, algorithm, salt, hashtype, no-superblock.
// Unknown and repeated keys are refused, as each of them changes what is
// verified.
func ParseVerity(prefix string, words []string) (Verity, error) {
	v := Verity{Algorithm: "sha256", BlockSize: pageSize, HashSize: pageSize, HashType: 1}
	seen := map[string]bool{}
	for _, w := range words {
		key, value, ok := strings.Cut(strings.TrimPrefix(w, prefix), "=")
		if !ok || !strings.HasPrefix(w, prefix) || seen[key] {
			return Verity{}, fmt.Errorf("dm-verity option %.80q is malformed or repeated: %w", w, errdefs.ErrInvalidArgument)
		}
		seen[key] = true
		if err := v.set(key, value); err != nil {
			return Verity{}, fmt.Errorf("dm-verity option %.80q: %w", w, err)
		}
	}
	return v, v.check()
}

func (v *Verity) set(key, value string) (err error) {
	switch key {
	case "roothash":
		v.RootHash = strings.ToLower(value)
	case "hashoffset":
		v.HashOffset, err = strconv.ParseUint(value, 10, 63)
	case "blocksize":
		v.BlockSize, err = strconv.ParseUint(value, 10, 32)
	case "hashsize":
		v.HashSize, err = strconv.ParseUint(value, 10, 32)
	case "algorithm":
		v.Algorithm = value
	case "salt":
		if v.Salt = strings.ToLower(value); value == "-" {
			v.Salt = ""
		}
	case "hashtype":
		var n uint64
		n, err = strconv.ParseUint(value, 10, 1)
		v.HashType = uint32(n)
	case "no-superblock":
		v.NoSuperblock, err = strconv.ParseBool(value)
	default:
		return fmt.Errorf("unknown: %w", errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return fmt.Errorf("not a value: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// digests are the algorithms that nobody can forge, with the size of a digest.
// The kernel knows others.
func digests() map[string]int {
	return map[string]int{"sha256": sha256.Size, "sha512": sha512.Size}
}

func (v Verity) check() error {
	bad := func(field, why string) error {
		return fmt.Errorf("dm-verity %s %s: %w", field, why, errdefs.ErrInvalidArgument)
	}
	length, known := digests()[v.Algorithm]
	root, errRoot := hex.DecodeString(v.RootHash)
	salt, errSalt := hex.DecodeString(v.Salt)
	switch {
	case !known:
		return bad("algorithm", "is neither sha256 nor sha512")
	case errRoot != nil || len(root) != length:
		return bad("roothash", "is no digest of its algorithm in hex")
	case errSalt != nil || len(salt) > maxSalt:
		return bad("salt", "is no hex of at most 256 bytes")
	case !blockSize(v.BlockSize):
		return bad("blocksize", "is no power of two from 512 to 4096")
	case !blockSize(v.HashSize):
		return bad("hashsize", "is no power of two from 512 to 4096")
	case v.HashOffset == 0 || v.HashOffset%v.BlockSize != 0 || v.HashOffset%v.HashSize != 0:
		return bad("hashoffset", "is missing or no multiple of the block sizes")
	}
	return nil
}

// blockSize limits blocks to what Linux takes on every machine: a page.
func blockSize(n uint64) bool { return n >= 512 && n <= pageSize && n&(n-1) == 0 }

// params are those of the target, see
// Documentation/admin-guide/device-mapper/verity.rst. On corruption a read
// fails.
func (v Verity) params(device string) string {
	start := v.HashOffset / v.HashSize
	if !v.NoSuperblock {
		start += (superblockSize + v.HashSize - 1) / v.HashSize
	}
	salt := v.Salt
	if salt == "" {
		salt = "-"
	}
	return fmt.Sprintf("%d %s %s %d %d %d %d %s %s %s", v.HashType, device, device,
		v.BlockSize, v.HashSize, v.HashOffset/v.BlockSize, start, v.Algorithm, v.RootHash, salt)
}

// OpenVerity makes a device that returns the data of node's, block by block,
// and an error for a block that the root hash does not vouch for. The caller
// removes it.
func (m *Mapper) OpenVerity(node string, v Verity) (*Device, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	device, err := number(node)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(node)
	if err != nil {
		return nil, fmt.Errorf("open device: %w", err)
	}
	all, err := size(f)
	f.Close()
	if err != nil {
		return nil, err
	}
	if v.HashOffset >= all {
		return nil, fmt.Errorf("dm-verity hashoffset %d is behind the end of the device at %d: %w", v.HashOffset, all, errdefs.ErrInvalidArgument)
	}
	d, err := m.create(table{target: "verity", sectors: v.HashOffset / 512, params: secret.Bytes(v.params(device)), ro: true})
	if err != nil {
		return nil, fmt.Errorf("verify device %q: %w", node, err)
	}
	return d, nil
}
