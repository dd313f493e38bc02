package main

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPause(t *testing.T) {
	for _, last := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(last.String(), func(t *testing.T) {
			var children []int
			for range 3 {
				pid, err := syscall.ForkExec("/bin/true", []string{"true"}, nil)
				if err != nil {
					t.Fatal(err)
				}
				children = append(children, pid)
			}
			for _, pid := range children {
				if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
					t.Fatal(err)
				}
			}
			// One signal for all of them, as the kernel may do it.
			signals := make(chan os.Signal, 2)
			signals <- syscall.SIGCHLD
			signals <- last
			pause(signals)
			for _, pid := range children {
				if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
					t.Errorf("child %d is still there: %v", pid, err)
				}
			}
		})
	}
}
