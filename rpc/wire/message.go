package wire

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// SpecMessage is the reverse of Spec, for clients. What the wire has no field
// for is left out: see the messages.
func SpecMessage(s *specs.Spec) *agentpb.Spec {
	m := &agentpb.Spec{
		Version:     s.Version,
		Hostname:    s.Hostname,
		Process:     ProcessMessage(s.Process),
		Mounts:      mapSlice(s.Mounts, mountMessage),
		Annotations: copyMap(s.Annotations),
		Linux:       linuxMessage(s.Linux),
	}
	if s.Root != nil {
		m.Root = &agentpb.Root{Path: s.Root.Path, Readonly: s.Root.Readonly}
	}
	if h := s.Hooks; h != nil {
		m.Hooks = &agentpb.Hooks{
			Prestart:        mapSlice(h.Prestart, hookMessage),
			Poststart:       mapSlice(h.Poststart, hookMessage),
			Poststop:        mapSlice(h.Poststop, hookMessage),
			CreateRuntime:   mapSlice(h.CreateRuntime, hookMessage),
			CreateContainer: mapSlice(h.CreateContainer, hookMessage),
			StartContainer:  mapSlice(h.StartContainer, hookMessage),
		}
	}
	return m
}

// ProcessMessage is the reverse of Process.
func ProcessMessage(p *specs.Process) *agentpb.Process {
	if p == nil {
		return nil
	}
	m := &agentpb.Process{
		Terminal: p.Terminal,
		User: &agentpb.User{
			UID:            p.User.UID,
			GID:            p.User.GID,
			AdditionalGids: slices.Clone(p.User.AdditionalGids),
			Username:       p.User.Username,
		},
		Args:            slices.Clone(p.Args),
		Env:             slices.Clone(p.Env),
		Cwd:             p.Cwd,
		NoNewPrivileges: p.NoNewPrivileges,
		ApparmorProfile: p.ApparmorProfile,
		SelinuxLabel:    p.SelinuxLabel,
		OOMScoreAdj:     int64(get(p.OOMScoreAdj)),
		Rlimits: mapSlice(p.Rlimits, func(r specs.POSIXRlimit) *agentpb.POSIXRlimit {
			return &agentpb.POSIXRlimit{Type: r.Type, Hard: r.Hard, Soft: r.Soft}
		}),
	}
	if c := p.ConsoleSize; c != nil {
		m.ConsoleSize = &agentpb.Box{Height: uint32(c.Height), Width: uint32(c.Width)}
	}
	if c := p.Capabilities; c != nil {
		m.Capabilities = &agentpb.LinuxCapabilities{
			Bounding:    slices.Clone(c.Bounding),
			Effective:   slices.Clone(c.Effective),
			Inheritable: slices.Clone(c.Inheritable),
			Permitted:   slices.Clone(c.Permitted),
			Ambient:     slices.Clone(c.Ambient),
		}
	}
	return m
}

func mountMessage(m specs.Mount) *agentpb.Mount {
	return &agentpb.Mount{
		Destination: m.Destination,
		Type:        m.Type,
		Source:      m.Source,
		Options:     slices.Clone(m.Options),
	}
}

func hookMessage(h specs.Hook) *agentpb.Hook {
	return &agentpb.Hook{
		Path:    h.Path,
		Args:    slices.Clone(h.Args),
		Env:     slices.Clone(h.Env),
		Timeout: int64(get(h.Timeout)),
	}
}
