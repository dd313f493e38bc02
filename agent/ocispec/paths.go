package ocispec

import "path"

// The paths below are part of the contract with the host: its runtime writes
// them into requests, and policies name them. They are constants in one place
// because changing one breaks every shim and every policy out there.
const (
	// Base holds one bundle per container, and the directories below.
	Base = "/run/kata-containers"
	// SharedDir is where files of the host appear: by virtio-fs, or by CopyFile.
	SharedDir = Base + "/shared/containers"
	// WatchableDir holds copies of shared files that change.
	WatchableDir = SharedDir + "/watchable"
	// SandboxDir holds what belongs to the pod.
	SandboxDir = Base + "/sandbox"
	// ShmDir is the pod's /dev/shm.
	ShmDir = SandboxDir + "/shm"
	// ResolvConf is the guest's own resolv.conf.
	ResolvConf = SandboxDir + "/resolv.conf"
	// EphemeralDir holds volumes in memory, StorageDir those on block devices.
	EphemeralDir = SandboxDir + "/ephemeral"
	StorageDir   = SandboxDir + "/storage"
	// VirtualVolumesDir holds the layers of a root file system made of block devices.
	VirtualVolumesDir = Base + "/virtual-volumes"
	// ImageDir is where images are pulled to.
	ImageDir = Base + "/image"
	// NamespacesDir pins the namespaces that the containers of a pod share.
	NamespacesDir = "/run/sandbox-ns"
	// InitdataDir holds what the initdata document has brought.
	InitdataDir = "/run/confidential-containers/initdata"
)

// Bundle is the directory of a container. cid must have been validated.
func Bundle(cid string) string { return path.Join(Base, cid) }

// Rootfs is the root file system of a container. In a guest that pulls images
// the host names this very path as the mount point of the image.
func Rootfs(cid string) string { return path.Join(Base, cid, "rootfs") }
