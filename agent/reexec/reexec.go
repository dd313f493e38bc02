// Package reexec turns a child that libcontainer started from this binary into
// the init of a container, before the rest of the program wakes up. Importing
// it is all a program has to do; cmd/agent and the tests that run containers
// do so.
//
//	agent ──fork, exec self "init"──▶ early.c: sane signals
//	                                  nsenter (C): namespaces, fork, fork
//	                                  Go runtime, init() of the packages below
//	                                  init() here: libcontainer.Init ──exec──▶ user's program
//
// Every create and every exec pays for the package initialisers that run
// before this one. The linker orders them by import path as soon as their
// dependencies are ready; the order of import statements plays no part. This
// package needs nothing but libcontainer, which needs net, whose dependencies
// sort last (vendor/...): in a binary with OPA, the image library and ocicrypt,
// three quarters of 4 ms of initialisers come first. So the cure is not the
// place of this package but cheap initialisers: no package-level regexp, table
// or parser anywhere in the program.
package reexec

import "C"

import (
	"os"
	"runtime"

	// libcontainer runs the second half of a container's start in the child.
	"github.com/opencontainers/runc/libcontainer"
	// nsenter is the C constructor that joins namespaces while the child still has one thread.
	_ "github.com/opencontainers/runc/libcontainer/nsenter"
)

func init() {
	// libcontainer moves a thread of the agent into each new container's mount
	// namespace and leaves it to the Go runtime to end that thread. The
	// runtime cannot end the main thread, and that one is what /proc/self
	// shows: the agent would from then on see the mounts of a container, and
	// keep them alive. Locked to the main goroutine it never gets such work.
	runtime.LockOSThread()
	if isChild(os.Args, os.Getenv("_LIBCONTAINER_INITPIPE")) {
		libcontainer.Init() // never returns
	}
}

// isChild tells a child of libcontainer from a guest whose kernel command line
// happens to hold the word init: the kernel hands words it does not know to
// PID 1 as arguments. The pid cannot tell, because the init of a new pid
// namespace is number 1 there; the pipe can, because early.c has wiped the
// environment of the guest's PID 1.
func isChild(args []string, pipe string) bool {
	return pipe != "" && len(args) > 1 && args[1] == "init"
}
