package initdata

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
)

// The disk that the host attaches:
//
//	"initdata"  8 bytes
//	length      8 bytes, little endian, of what follows
//	gzip        length bytes
//	zeros       up to a multiple of 512
const (
	magic      = "initdata"
	sectorSize = 512
)

// ErrNoMagic says that a disk does not begin with the magic word, so it is
// some other disk. It wraps errdefs.ErrNotFound.
var ErrNoMagic = fmt.Errorf("disk carries no initdata: %w", errdefs.ErrNotFound)

// EncodeDisk packs a text. The same text gives the same bytes.
func EncodeDisk(raw []byte) ([]byte, error) {
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(raw); err != nil {
		return nil, fmt.Errorf("compress initdata: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compress initdata: %w", err)
	}
	disk := binary.LittleEndian.AppendUint64([]byte(magic), uint64(packed.Len()))
	disk = append(disk, packed.Bytes()...)
	padding := (sectorSize - len(disk)%sectorSize) % sectorSize
	return append(disk, make([]byte, padding)...), nil
}

// DecodeDisk unpacks the text from the beginning of a disk. Neither the length
// that the host wrote nor the inflated text may exceed max, so nothing the
// host writes makes it allocate more than that. It returns ErrNoMagic for a
// disk of another kind, also one too short to tell; other errors wrap
// errdefs.ErrInvalidArgument, or are those of reading the disk.
func DecodeDisk(r io.Reader, max int64) ([]byte, error) {
	var head [len(magic) + 8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, ErrNoMagic
		}
		return nil, fmt.Errorf("read initdata disk: %w", err)
	}
	if string(head[:len(magic)]) != magic {
		return nil, ErrNoMagic
	}
	length := binary.LittleEndian.Uint64(head[len(magic):])
	if max < 0 || length > uint64(max) {
		return nil, fmt.Errorf("initdata disk: length exceeds %d bytes: %w", max, errdefs.ErrInvalidArgument)
	}
	z, err := gzip.NewReader(io.LimitReader(r, int64(length)))
	if err != nil {
		return nil, fmt.Errorf("initdata disk: not gzip: %w", errdefs.ErrInvalidArgument)
	}
	z.Multistream(false)
	raw, err := io.ReadAll(io.LimitReader(z, max+1))
	if err != nil {
		return nil, fmt.Errorf("initdata disk: damaged gzip: %w", errdefs.ErrInvalidArgument)
	}
	if int64(len(raw)) > max {
		return nil, fmt.Errorf("initdata disk: text exceeds %d bytes: %w", max, errdefs.ErrInvalidArgument)
	}
	return raw, nil
}
