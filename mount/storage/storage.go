// Package storage attaches what the host asks to be mounted in the guest:
// shared directories, disks, tmpfs, overlays and images pulled in the guest.
//
// Each kind has one file with a Handler, and Handlers lists them. A Manager
// runs them: it checks the mount point, keeps the ledger of who uses it, and
// undoes what it did when a later step fails. Everything in a Storage comes
// from the host and is treated as hostile.
package storage

import (
	"context"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/mount/device"
)

// DefaultRoot is the directory below which every mount point lies.
const DefaultRoot = "/run/kata-containers"

// Storage is one request to mount something. Its fields have the meaning of
// the message grpc.Storage; which of them a driver reads stands at its handler.
type Storage struct {
	Driver        string
	DriverOptions []string
	Source        string
	FSType        string
	Options       []string // mount(8) words
	MountPoint    string
	FSGroup       *FSGroup // nil leaves the ownership alone
	Shared        bool     // stays mounted until the sandbox ends

	layers []Storage // of a root file system, gathered by the Manager
}

// FSGroup asks that everything in the storage belong to a group.
type FSGroup struct {
	GroupID        uint32
	OnRootMismatch bool // do nothing when the root directory already fits
}

// A Handler attaches one kind of storage. The Manager calls Attach with a
// checked mount point, once per mount point at a time but for several mount
// points at once. Attach is all or nothing.
type Handler interface {
	Attach(ctx context.Context, owner string, s Storage) (Volume, error)
}

// A Volume is an attached storage. Detach is called once, by the Manager alone.
type Volume interface {
	Path() string
	Detach(ctx context.Context) error
}

// Rootfs is the Volume of the driver image_guest_pull. Exactly one of Image
// and Pause answers true.
type Rootfs interface {
	Volume
	// Image returns the verified facts of the pulled image.
	Image() (Image, bool)
	// Pause returns the process of the guest's own pause bundle, which takes
	// the place of the one that the host asked for. The caller owns it.
	Pause() (*specs.Process, bool)
}

// Image is a pulled and verified image, unpacked and ready to use.
type Image struct {
	Rootfs         string // an absolute path, mounted and writable
	Reference      string // what was asked for
	ManifestDigest string // what was verified
	IndexDigest    string // of the index that lists the manifest; empty when the reference named it directly
	Config         v1.Image
}

// Images pulls images inside the guest. Pull may take minutes. Release lets go
// of all that was pulled for the owner and is idempotent.
type Images interface {
	Pull(ctx context.Context, ref, owner string) (Image, error)
	Release(ctx context.Context, owner string) error
}

// Finder waits for a device to appear; *device.Finder satisfies it.
type Finder interface {
	Wait(ctx context.Context, m device.Matcher) (path string, err error)
}

// Deps is what handlers and Manager need from elsewhere. A nil Images or
// Devices makes the drivers that need it answer ErrNotImplemented.
type Deps struct {
	Images      Images
	Devices     Finder
	PauseBundle string // directory with config.json and rootfs; "/pause_bundle" when empty
	Root        string // DefaultRoot when empty; it must exist
	Sys         string // "/sys" when empty
	Mkfs        string // program that makes ext4, a path or a name; "mkfs.ext4" when empty
	// LoadModule loads a module of the guest's kernel; ErrNotFound says that the
	// image has none of the name. Nil when there is nothing to load.
	LoadModule  func(ctx context.Context, name string) error
	NoIntegrity bool // encrypted scratch disks carry no authentication tags
	// Confidential guests share no directory with the host, and do not rest on a
	// disk of the host's that nothing protects, where a request looks as if it
	// were protected; see protection.
	Confidential bool
	Reserved     []string // names directly below Root where nothing may be mounted; "image" when nil
}
