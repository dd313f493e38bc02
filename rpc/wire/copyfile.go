package wire

import (
	"encoding/json"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// Kinds of file as a policy sees them.
const (
	typeUnknown   = "Unknown"
	typeRegular   = "Regular"
	typeDirectory = "Directory"
	typeSymlink   = "Symlink"
)

// copyFileInput is the policy's view of a CopyFileRequest. The content of a
// file is left out: it is large, and no rule can judge it piece by piece.
type copyFileInput struct {
	Path          string  `json:"path"`
	FileType      string  `json:"file_type"`
	SymlinkTarget *string `json:"symlink_target"`
	FileSize      int64   `json:"file_size"`
	FileMode      uint32  `json:"file_mode"`
	DirMode       uint32  `json:"dir_mode"`
	UID           int32   `json:"uid"`
	GID           int32   `json:"gid"`
	Offset        int64   `json:"offset"`
}

// CopyFileInput renders a CopyFileRequest for the policy. A symlink whose
// target is not valid UTF-8 is refused, since a policy could not read it.
func CopyFileInput(r *agentpb.CopyFileRequest) ([]byte, error) {
	in := copyFileInput{
		Path:     r.GetPath(),
		FileType: fileType(r.GetFileMode()),
		FileSize: r.GetFileSize(),
		FileMode: r.GetFileMode(),
		DirMode:  r.GetDirMode(),
		UID:      r.GetUid(),
		GID:      r.GetGid(),
		Offset:   r.GetOffset(),
	}
	if in.FileType == typeSymlink {
		if !utf8.Valid(r.GetData()) {
			return nil, invalid("data", "symlink target is not text")
		}
		in.SymlinkTarget = ptr(string(r.GetData()))
	}
	return json.Marshal(in)
}

// fileType compares the whole type field. The bits of one type are contained
// in those of others: a socket has the directory bit.
func fileType(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return typeRegular
	case unix.S_IFDIR:
		return typeDirectory
	case unix.S_IFLNK:
		return typeSymlink
	}
	return typeUnknown
}
