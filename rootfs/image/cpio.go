package image

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"

	"github.com/containerd/errdefs"
)

// Kinds of files, as the mode word of an archive spells them.
const (
	kindFile    = 0o100000
	kindDir     = 0o040000
	kindLink    = 0o120000
	kindCharDev = 0o020000
)

// An entry is one file of the guest's root. Owner is root and the time is the
// epoch: nothing of the machine that builds may show in the image.
type entry struct {
	path         string // relative, clean
	kind         uint32
	perm         fs.FileMode
	data         []byte // content, or target of a link
	major, minor uint32
}

// writeCPIO writes the "newc" archive of the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst: per file
//
//	"070701"  13 fields of 8 hex digits  name NUL  pad to 4  data  pad to 4
//
// and an entry named TRAILER!!! at the end. Parents come before children,
// because the kernel creates no directories by itself.
func writeCPIO(w io.Writer, entries []entry) error {
	c := &cpioWriter{w: bufio.NewWriterSize(w, 1<<20)}
	for i, e := range entries {
		c.write(uint32(i+1), e)
	}
	c.write(0, entry{path: "TRAILER!!!"})
	if c.err != nil {
		return fmt.Errorf("write archive: %w", c.err)
	}
	return c.w.Flush()
}

type cpioWriter struct {
	w   *bufio.Writer
	err error
}

func (c *cpioWriter) write(inode uint32, e entry) {
	if uint64(len(e.data)) > 1<<32-1 && c.err == nil {
		c.err = fmt.Errorf("file %s is too large for the archive: %w", e.path, errdefs.ErrInvalidArgument)
	}
	links := uint32(1)
	if e.kind == kindDir {
		links = 2
	}
	header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		inode, e.kind|uint32(e.perm), 0, 0, links, 0, len(e.data), 0, 0, e.major, e.minor, len(e.path)+1, 0, e.path)
	c.padded([]byte(header))
	c.padded(e.data)
}

func (c *cpioWriter) padded(b []byte) {
	if c.err != nil {
		return
	}
	if _, c.err = c.w.Write(b); c.err != nil {
		return
	}
	_, c.err = c.w.Write(make([]byte, -len(b)&3))
}
