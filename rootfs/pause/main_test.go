package main

import (
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
)

// TestMain lets the test binary be the pause program.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "pause" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestEndsOnSignal(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(s.String(), func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Args = []string{"pause"}
			// A program inherits ignored signals: one that comes before the
			// program asks for it is lost instead of deadly, so send again.
			signal.Ignore(s)
			defer signal.Reset(s)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			for {
				if err := cmd.Process.Signal(s); err != nil {
					break
				}
				select {
				case err := <-ended:
					if err != nil {
						t.Errorf("ended with %v", err)
					}
					return
				default:
				}
			}
			if err := <-ended; err != nil {
				t.Errorf("ended with %v", err)
			}
		})
	}
}
