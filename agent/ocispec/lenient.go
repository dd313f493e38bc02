package ocispec

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Lenient takes out what the host's runtime sends, what the guest cannot do,
// and what libcontainer would refuse the container for: AppArmor profiles and
// cache partitions of the host's machine, and options of bind mounts that the
// kernel ignores.
func Lenient(spec *specs.Spec) {
	spec.Process.ApparmorProfile = ""
	spec.Linux.IntelRdt = nil
	spec.Mounts = slices.Clone(spec.Mounts)
	for i, m := range spec.Mounts {
		spec.Mounts[i].Options = bindOptions(m)
	}
}

// bindOptions returns the options of m. A bind mount keeps only flags, because
// it has no filesystem that could take an option like mode=; one that is bind
// by its type alone gets the option that says so.
func bindOptions(m specs.Mount) []string {
	asked := slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
	if !asked && m.Type != "bind" {
		return m.Options
	}
	out := slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return !isFlag(o) })
	if !asked {
		out = append(out, "rbind")
	}
	return out
}

// isFlag reports whether o is one of the options of the runtime specification
// that belong to the mount and not to a filesystem. All but a few come plain,
// with an r for recursive, and without the no.
func isFlag(o string) bool {
	switch o {
	case "bind", "rbind", "defaults", "remount", "acl", "noacl", "iversion", "noiversion",
		"silent", "loud", "sync", "async", "dirsync", "mand", "nomand", "tmpcopyup",
		"idmap", "ridmap", "strictatime", "nostrictatime", "rstrictatime", "rnostrictatime":
		return true
	}
	for _, kind := range []string{"private", "shared", "slave", "unbindable", "ro", "rw"} {
		if strings.TrimPrefix(o, "r") == kind || o == kind {
			return true
		}
	}
	for _, kind := range []string{"suid", "dev", "exec", "atime", "diratime", "relatime", "symfollow"} {
		if strings.TrimPrefix(strings.TrimPrefix(o, "r"), "no") == kind || strings.TrimPrefix(o, "no") == kind {
			return true
		}
	}
	return false
}
