# A pod with one container in the manner of generated policies: defaults, a
# table of what may run, and a state that remembers what does.
package agent_policy

import future.keywords.every
import future.keywords.if
import future.keywords.in

default AddARPNeighborsRequest := false
default CopyFileRequest := false
default CreateContainerRequest := false
default ExecProcessRequest := false
default GuestDetailsRequest := true
default ReadStreamRequest := false
default RemoveContainerRequest := false
default SetPolicyRequest := false
default UpdateInterfaceRequest := false

CreateContainerRequest := {"allowed": true, "ops": ops} if {
	is_null(input.OCI.Hooks)
	count(input.OCI.Linux.Devices) == 0

	some index, wanted in policy_data.containers
	print("container", index, "args", input.OCI.Process.Args)
	wanted.args == input.OCI.Process.Args
	name := sprintf("pod-%s-%d", [lower(policy_data.name), index])
	regex.match(concat("", ["^", name, "$"]), input.OCI.Annotations["sandbox-name"])
	every entry in input.OCI.Process.Env {
		env_allowed(wanted, entry)
	}
	ops := remember(input.container_id, index)
}

env_allowed(wanted, entry) if {
	entry in wanted.env
}

env_allowed(_, entry) if {
	parts := split(entry, "=")
	startswith(parts[0], "POD_")
	some pattern in policy_data.env_patterns
	regex.match(replace(pattern, "$(ip)", policy_data.ip), trim_prefix(entry, "POD_"))
}

remember(id, index) := ops if {
	not data.pstate[id]
	ops := [{"op": "add", "path": concat("/", ["/pstate", id]), "value": {"index": index, "token": base64url.encode(id)}}]
}

remember(id, index) := ops if {
	data.pstate[id].index == index
	ops := []
}

RemoveContainerRequest := {"allowed": true, "ops": [{"op": "remove", "path": concat("/", ["/pstate", input.container_id])}]} if {
	data.pstate[input.container_id]
}

ExecProcessRequest if {
	container := policy_data.containers[data.pstate[input.container_id].index]
	input.process.Args in container.exec
}

AddARPNeighborsRequest if {
	every neighbor in input.neighbors.ARPNeighbors {
		not neighbor.device in {"lo"}
		bits.or(neighbor.flags, 136) == 136
	}
}

UpdateInterfaceRequest if {
	bits.and(input.interface.raw_flags, bits.negate(policy_data.flags)) == 0
	some address in input.interface.IPAddresses
	found := regex.find_all_string_submatch_n("^([0-9]+)\\.", address.address, -1)
	to_number(found[0][1]) == 10
}

CopyFileRequest if {
	input.file_type == "Regular"
	not contains(input.path, "..")
	startswith(input.path, policy_data.shared)
}

ReadStreamRequest if {
	policy_data.flags_of_a_later_version.read == true
}

policy_data := {
	"name": "WEB",
	"ip": "10\\.[0-9.]+",
	"flags": 128,
	"shared": "/run/kata-containers/shared/containers/",
	"env_patterns": ["^ADDRESS=$(ip)$"],
	"containers": [
		{"args": ["/pause"], "env": [], "exec": []},
		{"args": ["/web", "-p", "80"], "env": ["PATH=/bin"], "exec": [["ls", "-l"]]},
	],
}
