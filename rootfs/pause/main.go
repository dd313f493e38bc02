// The pause program is the first process of a pod's sandbox container. It
// holds the pod's namespaces open, collects the orphans that a shared pid
// namespace hands to it, and ends when it is told to. It is all there is in
// the guest's pause bundle, so it must be static and need no file.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	pause(signals)
}

// pause returns at the first signal that is not about a child.
func pause(signals <-chan os.Signal) {
	// Orphans that ended before Notify raise no further signal.
	reap()
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		reap()
	}
}

// reap collects every child that has ended. One SIGCHLD may stand for many.
func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
	}
}
