package container

import "github.com/opencontainers/runc/libcontainer/seccomp"

// Seccomp tells whether this binary was built with system call filters. The Go
// shim refuses to create containers when the guest has to filter and cannot.
const Seccomp = seccomp.Enabled
