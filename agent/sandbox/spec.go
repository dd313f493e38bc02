package sandbox

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// editNamespaces makes a container join the pod. Namespaces of the kinds ipc and
// uts that the spec asks for become the shared ones, and there is always a pid
// namespace, the shared one or its own. What the spec does not mention stays the
// guest's: above all the network, which is the pod's.
func editNamespaces(spec *specs.Spec, shared namespaces) {
	list := slices.DeleteFunc(slices.Clone(spec.Linux.Namespaces), func(n specs.LinuxNamespace) bool {
		return n.Type == specs.PIDNamespace
	})
	ownUTS := false
	for i, n := range list {
		switch n.Type {
		case specs.IPCNamespace:
			list[i].Path = shared.ipc
		case specs.UTSNamespace:
			list[i].Path = shared.uts
			ownUTS = shared.uts == ""
		}
	}
	spec.Linux.Namespaces = append(list, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: shared.pid})
	if !ownUTS {
		// The sandbox has its name. Every container that set its own again
		// would rename all of them.
		spec.Hostname, spec.Domainname = "", ""
	}
}
