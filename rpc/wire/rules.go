package wire

import "google.golang.org/protobuf/reflect/protoreflect"

// rule is what a string field must look like.
type rule int

const (
	anyText      rule = iota
	document          // text bounded by the message alone
	metadata          // one annotation of a pod, such as its policy, or all of them as JSON
	name              // short text
	neededName        // short text, not empty
	anyPath           // text of path length, relative or with a scheme
	absPath           // absolute path, or empty
	neededPath        // absolute path, not empty
	containerID       // container identifier, not empty
	sandboxID         // container identifier, or empty
	processID         // exec identifier, or empty for the container's init
	newProcessID      // exec identifier, not empty
)

func (r rule) mustBeSet() bool {
	return r == neededName || r == neededPath || r == containerID || r == newProcessID
}

// check judges a value that is set.
func (r rule) check(field, s string) error {
	switch r {
	case document:
		return nil
	case metadata:
		return checkText(field, s, maxMetadata)
	case name, neededName:
		return checkText(field, s, maxName)
	case anyPath:
		return checkText(field, s, maxPath)
	case absPath, neededPath:
		return CheckPath(field, s)
	case containerID, sandboxID:
		return CheckContainerID(field, s)
	case processID, newProcessID:
		return CheckExecID(field, s)
	}
	return checkText(field, s, maxText)
}

// ruleFor names the fields that are more than text. It is a switch and not a
// map because a map would be built in every re-executed container init.
func ruleFor(f protoreflect.FullName) rule {
	switch f {
	case "grpc.SetPolicyRequest.policy":
		return document
	case "grpc.Spec.AnnotationsEntry.value", "grpc.Storage.driver_options":
		return metadata

	case "grpc.CreateContainerRequest.container_id", "grpc.StartContainerRequest.container_id",
		"grpc.RemoveContainerRequest.container_id", "grpc.UpdateContainerRequest.container_id",
		"grpc.PauseContainerRequest.container_id", "grpc.ResumeContainerRequest.container_id",
		"grpc.StatsContainerRequest.container_id", "grpc.ExecProcessRequest.container_id",
		"grpc.SignalProcessRequest.container_id", "grpc.WaitProcessRequest.container_id",
		"grpc.WriteStreamRequest.container_id", "grpc.ReadStreamRequest.container_id",
		"grpc.CloseStdinRequest.container_id", "grpc.TtyWinResizeRequest.container_id",
		"grpc.GetDiagnosticDataRequest.container_id":
		return containerID
	case "grpc.CreateSandboxRequest.sandbox_id":
		return sandboxID
	case "grpc.ExecProcessRequest.exec_id":
		return newProcessID
	case "grpc.CreateContainerRequest.exec_id", "grpc.SignalProcessRequest.exec_id",
		"grpc.WaitProcessRequest.exec_id", "grpc.WriteStreamRequest.exec_id",
		"grpc.ReadStreamRequest.exec_id", "grpc.CloseStdinRequest.exec_id",
		"grpc.TtyWinResizeRequest.exec_id":
		return processID

	case "grpc.CopyFileRequest.path", "grpc.VolumeStatsRequest.volume_guest_path",
		"grpc.ResizeVolumeRequest.volume_guest_path", "grpc.AddSwapPathRequest.path",
		"grpc.Storage.mount_point", "grpc.Device.container_path",
		"grpc.Root.Path", "grpc.LinuxDevice.Path", "grpc.Hook.Path",
		"grpc.Linux.MaskedPaths", "grpc.Linux.ReadonlyPaths":
		return neededPath
	case "grpc.CreateSandboxRequest.guest_hook_path", "grpc.LinuxNamespace.Path",
		"grpc.SharedMount.src_path", "grpc.SharedMount.dst_path", "grpc.Process.Cwd":
		return absPath
	case "grpc.Storage.source", "grpc.Device.vm_path", "grpc.Mount.destination",
		"grpc.Mount.source", "grpc.Linux.CgroupsPath":
		return anyPath

	case "grpc.Storage.driver", "grpc.Device.type", "grpc.KernelModule.name":
		return neededName
	case "grpc.CreateSandboxRequest.hostname", "grpc.Spec.Hostname", "grpc.Spec.Version",
		"grpc.Storage.fstype", "grpc.Device.id", "grpc.Mount.type",
		"grpc.SharedMount.name", "grpc.SharedMount.src_ctr", "grpc.SharedMount.dst_ctr",
		"grpc.POSIXRlimit.Type", "grpc.LinuxNamespace.Type", "grpc.LinuxDevice.Type",
		"grpc.LinuxDeviceCgroup.Type", "grpc.LinuxDeviceCgroup.Access",
		"grpc.LinuxHugepageLimit.Pagesize", "grpc.LinuxInterfacePriority.Name",
		"grpc.Linux.RootfsPropagation", "grpc.LinuxSeccomp.DefaultAction",
		"grpc.LinuxSyscall.Action", "grpc.LinuxSeccompArg.Op",
		"grpc.GetDiagnosticDataRequest.log_type",
		"types.IPAddress.address", "types.IPAddress.mask",
		"types.Interface.device", "types.Interface.name", "types.Interface.hwAddr",
		"types.Interface.devicePath", "types.Interface.type",
		"types.Route.dest", "types.Route.gateway", "types.Route.device", "types.Route.source",
		"types.ARPNeighbor.device", "types.ARPNeighbor.lladdr":
		return name
	}
	return anyText
}
