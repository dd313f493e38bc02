// Package ocispec edits runtime specs: from what the host's runtime means to
// what the guest's kernel and libcontainer understand. The edits are pure;
// nothing here touches a file, and none of them fails on a spec that has its
// process, root and linux parts. They change the spec they are given, which
// therefore must belong to the caller.
package ocispec

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Shared holds the paths of the namespaces that the containers of a pod share.
// An empty path means that there is none to join.
type Shared struct {
	IPC, UTS, PID string
}

// Namespaces decides which namespaces the container gets. The host says which
// kinds; the only path that it may give is that of the network, because it
// cannot know any other, and one that it made up could lead into the agent's.
//
//	mount    always new: joining another would let the root be set up in it
//	pid      always: the shared one, else new
//	ipc uts  if listed: the shared one, else new
//	network  if listed: as listed; else the guest's, which is the pod's
//	others   if listed: new
//
// The host name goes with a shared UTS namespace. Each container that set its
// own there would rename the whole pod, and libcontainer refuses a name
// without a namespace for it.
func Namespaces(spec *specs.Spec, shared Shared) {
	list := []specs.LinuxNamespace{
		{Type: specs.MountNamespace},
		{Type: specs.PIDNamespace, Path: shared.PID},
	}
	ownUTS := false
	for _, n := range spec.Linux.Namespaces {
		if has(list, n.Type) {
			continue
		}
		switch n.Type {
		case specs.NetworkNamespace:
		case specs.IPCNamespace:
			n.Path = shared.IPC
		case specs.UTSNamespace:
			n.Path = shared.UTS
			ownUTS = shared.UTS == ""
		default:
			n.Path = ""
		}
		list = append(list, n)
	}
	spec.Linux.Namespaces = list
	if !ownUTS {
		spec.Hostname, spec.Domainname = "", ""
	}
}

func has(list []specs.LinuxNamespace, t specs.LinuxNamespaceType) bool {
	for _, n := range list {
		if n.Type == t {
			return true
		}
	}
	return false
}
