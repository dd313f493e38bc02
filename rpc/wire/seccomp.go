package wire

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// seccompSpec accepts words of the OCI specification alone, so that a filter
// never means less than it says. A denied call without an errno gets EPERM: an
// errno of 0 would tell the caller that it succeeded.
func seccompSpec(path string, m *agentpb.LinuxSeccomp) (*specs.LinuxSeccomp, error) {
	if m == nil {
		return nil, nil
	}
	s := &specs.LinuxSeccomp{DefaultAction: specs.LinuxSeccompAction(m.DefaultAction)}
	if !knownAction(s.DefaultAction) {
		return nil, invalid(path+".DefaultAction", "unknown action %.32q", m.DefaultAction)
	}
	if takesErrno(s.DefaultAction) {
		s.DefaultErrnoRet = ptr(uint(unix.EPERM))
	}
	var err error
	if s.Architectures, err = tryMapSlice(path+".Architectures", m.Architectures, archSpec); err != nil {
		return nil, err
	}
	if s.Flags, err = tryMapSlice(path+".Flags", m.Flags, seccompFlagSpec); err != nil {
		return nil, err
	}
	if s.Syscalls, err = tryMapSlice(path+".Syscalls", m.Syscalls, syscallSpec); err != nil {
		return nil, err
	}
	return s, nil
}

func syscallSpec(path string, m *agentpb.LinuxSyscall) (c specs.LinuxSyscall, err error) {
	c = specs.LinuxSyscall{Names: slices.Clone(m.Names), Action: specs.LinuxSeccompAction(m.Action)}
	if !knownAction(c.Action) {
		return c, invalid(path+".Action", "unknown action %.32q", m.Action)
	}
	if takesErrno(c.Action) {
		c.ErrnoRet = ptr(uint(unix.EPERM))
		if e, ok := m.ErrnoRet.(*agentpb.LinuxSyscall_Errnoret); ok {
			c.ErrnoRet = ptr(uint(e.Errnoret))
		}
	}
	c.Args, err = tryMapSlice(path+".Args", m.Args, seccompArgSpec)
	return c, err
}

func seccompArgSpec(path string, m *agentpb.LinuxSeccompArg) (a specs.LinuxSeccompArg, err error) {
	switch op := specs.LinuxSeccompOperator(m.Op); op {
	case specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo,
		specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual:
		a = specs.LinuxSeccompArg{Index: uint(m.Index), Value: m.Value, ValueTwo: m.ValueTwo, Op: op}
	default:
		return a, invalid(path+".Op", "unknown operator %.32q", m.Op)
	}
	if m.Index > 5 {
		return a, invalid(path+".Index", "a system call has six arguments")
	}
	return a, nil
}

func takesErrno(a specs.LinuxSeccompAction) bool {
	return a == specs.ActErrno || a == specs.ActTrace
}

// knownAction leaves SCMP_ACT_NOTIFY out: its listener cannot be named on the
// wire.
func knownAction(a specs.LinuxSeccompAction) bool {
	switch a {
	case specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap,
		specs.ActErrno, specs.ActTrace, specs.ActAllow, specs.ActLog:
		return true
	}
	return false
}

func seccompFlagSpec(path, flag string) (f specs.LinuxSeccompFlag, err error) {
	switch f = specs.LinuxSeccompFlag(flag); f {
	case specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow,
		specs.LinuxSeccompFlagWaitKillableRecv, "SECCOMP_FILTER_FLAG_TSYNC":
		return f, nil
	}
	return f, invalid(path, "unknown flag %.48q", flag)
}

func archSpec(path, arch string) (a specs.Arch, err error) {
	switch a = specs.Arch(arch); a {
	case specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64,
		specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL,
		specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64,
		specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC,
		specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K,
		specs.ArchSH, specs.ArchSHEB:
		return a, nil
	}
	return a, invalid(path, "unknown architecture %.32q", arch)
}
