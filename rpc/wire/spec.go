package wire

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// Spec turns the spec of a CreateContainerRequest into the OCI one. The result
// shares no memory with the message.
//
// Proto3 cannot tell zero from absent, so a zero scalar counts as absent. Where
// that would widen what the container may do, the narrower reading is taken. A
// spec without process, root or linux part is refused; replacing them by
// defaults would start something that nobody asked for. Args may be empty: the
// image's own command is then used.
func Spec(m *agentpb.Spec) (*specs.Spec, error) {
	switch {
	case m == nil:
		return nil, invalid("OCI", "is missing")
	case m.Process == nil:
		return nil, invalid("OCI.Process", "is missing")
	case m.Root == nil:
		return nil, invalid("OCI.Root", "is missing")
	case m.Linux == nil:
		return nil, invalid("OCI.Linux", "is missing")
	}
	process, err := processSpec("OCI.Process", m.Process)
	if err != nil {
		return nil, err
	}
	if process.Capabilities == nil {
		// Nobody to inherit from: no capabilities, not all of them.
		process.Capabilities = &specs.LinuxCapabilities{}
	}
	linux, err := linuxSpec("OCI.Linux", m.Linux)
	if err != nil {
		return nil, err
	}
	return &specs.Spec{
		Version:     m.Version,
		Process:     process,
		Root:        &specs.Root{Path: m.Root.Path, Readonly: m.Root.Readonly},
		Hostname:    m.Hostname,
		Mounts:      mapSlice(m.Mounts, mountSpec),
		Hooks:       hooksSpec(m.Hooks),
		Annotations: copyMap(m.Annotations),
		Linux:       linux,
	}, nil
}

// Process turns the process of an ExecProcessRequest into the OCI one. Its
// Capabilities are nil when the message has none; the process then gets those
// of its container, neither none nor all.
func Process(m *agentpb.Process) (*specs.Process, error) {
	if m == nil {
		return nil, invalid("process", "is missing")
	}
	return processSpec("process", m)
}

func processSpec(path string, m *agentpb.Process) (*specs.Process, error) {
	p := &specs.Process{
		Terminal:        m.Terminal,
		User:            userSpec(m.User),
		Args:            slices.Clone(m.Args),
		Env:             slices.Clone(m.Env),
		Cwd:             m.Cwd,
		Capabilities:    capabilitiesSpec(m.Capabilities),
		NoNewPrivileges: m.NoNewPrivileges,
		SelinuxLabel:    m.SelinuxLabel,
		// ApparmorProfile names a profile of the host, which the guest cannot
		// have; the guest itself is the confinement.
	}
	if s := m.ConsoleSize; s != nil {
		p.ConsoleSize = &specs.Box{Height: uint(s.Height), Width: uint(s.Width)}
	}
	if adj := m.OOMScoreAdj; adj != 0 {
		if adj < -1000 || adj > 1000 {
			return nil, invalid(path+".OOMScoreAdj", "must lie between -1000 and 1000")
		}
		p.OOMScoreAdj = ptr(int(adj))
	}
	for i, r := range m.Rlimits {
		if !knownRlimit(r.Type) {
			return nil, invalid(at(path+".Rlimits", i)+".Type", "unknown limit %.32q", r.Type)
		}
		p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: r.Type, Hard: r.Hard, Soft: r.Soft})
	}
	return p, nil
}

func userSpec(m *agentpb.User) specs.User {
	return specs.User{
		UID:            m.GetUID(),
		GID:            m.GetGID(),
		AdditionalGids: slices.Clone(m.GetAdditionalGids()),
		Username:       m.GetUsername(),
	}
}

func knownRlimit(name string) bool {
	switch name {
	case "RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE",
		"RLIMIT_LOCKS", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_NOFILE",
		"RLIMIT_NPROC", "RLIMIT_RSS", "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING",
		"RLIMIT_STACK":
		return true
	}
	return false
}

func capabilitiesSpec(m *agentpb.LinuxCapabilities) *specs.LinuxCapabilities {
	if m == nil {
		return nil
	}
	return &specs.LinuxCapabilities{
		Bounding:    mapSlice(m.Bounding, capability),
		Effective:   mapSlice(m.Effective, capability),
		Inheritable: mapSlice(m.Inheritable, capability),
		Permitted:   mapSlice(m.Permitted, capability),
		Ambient:     mapSlice(m.Ambient, capability),
	}
}

// capability brings a name into the form CAP_X. Some senders wrap it in JSON
// quotes or leave the prefix out. Names unknown to the kernel pass; whoever
// applies them warns and drops them, because newer hosts know more names.
func capability(name string) string {
	name = strings.ToUpper(strings.Trim(name, `"`))
	if strings.HasPrefix(name, "CAP_") {
		return name
	}
	return "CAP_" + name
}

func mountSpec(m *agentpb.Mount) specs.Mount {
	return specs.Mount{
		Destination: m.Destination,
		Type:        m.Type,
		Source:      m.Source,
		Options:     slices.Clone(m.Options),
	}
}

func hooksSpec(m *agentpb.Hooks) *specs.Hooks {
	if m == nil {
		return nil
	}
	return &specs.Hooks{
		Prestart:        mapSlice(m.Prestart, hookSpec),
		CreateRuntime:   mapSlice(m.CreateRuntime, hookSpec),
		CreateContainer: mapSlice(m.CreateContainer, hookSpec),
		StartContainer:  mapSlice(m.StartContainer, hookSpec),
		Poststart:       mapSlice(m.Poststart, hookSpec),
		Poststop:        mapSlice(m.Poststop, hookSpec),
	}
}

func hookSpec(m *agentpb.Hook) specs.Hook {
	h := specs.Hook{Path: m.Path, Args: slices.Clone(m.Args), Env: slices.Clone(m.Env)}
	if m.Timeout > 0 {
		h.Timeout = ptr(int(m.Timeout))
	}
	return h
}
