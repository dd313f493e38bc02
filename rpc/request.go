package rpc

import (
	"github.com/coffer-cc/coffer/agent/devices"
	"github.com/coffer-cc/coffer/agent/network"
	"github.com/coffer-cc/coffer/agent/sandbox"
	"github.com/coffer-cc/coffer/mount/storage"
	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/protos/typespb"
)

// What follows turns parts of messages into the types that the floors below
// speak, and back. Nothing is judged here.

func storages(ms []*agentpb.Storage) []storage.Storage {
	out := make([]storage.Storage, 0, len(ms))
	for _, m := range ms {
		s := storage.Storage{
			Driver: m.GetDriver(), DriverOptions: m.GetDriverOptions(),
			Source: m.GetSource(), FSType: m.GetFstype(), Options: m.GetOptions(),
			MountPoint: m.GetMountPoint(), Shared: m.GetShared(),
		}
		if g := m.GetFsGroup(); g != nil {
			s.FSGroup = &storage.FSGroup{
				GroupID:        g.GetGroupId(),
				OnRootMismatch: g.GetGroupChangePolicy() == typespb.FSGroupChangePolicy_OnRootMismatch,
			}
		}
		out = append(out, s)
	}
	return out
}

func deviceList(ms []*agentpb.Device) []devices.Device {
	out := make([]devices.Device, 0, len(ms))
	for _, m := range ms {
		out = append(out, devices.Device{
			ID: m.GetId(), Type: m.GetType(), VMPath: m.GetVmPath(),
			ContainerPath: m.GetContainerPath(), Options: m.GetOptions(),
		})
	}
	return out
}

func sharedMounts(ms []*agentpb.SharedMount) []sandbox.SharedMount {
	out := make([]sandbox.SharedMount, 0, len(ms))
	for _, m := range ms {
		out = append(out, sandbox.SharedMount{
			From: m.GetSrcCtr(), Source: m.GetSrcPath(), To: m.GetDstCtr(), Target: m.GetDstPath(),
		})
	}
	return out
}

func addresses(ms []*typespb.IPAddress) []network.Address {
	out := make([]network.Address, 0, len(ms))
	for _, m := range ms {
		out = append(out, network.Address{Address: m.GetAddress(), Mask: m.GetMask()})
	}
	return out
}
