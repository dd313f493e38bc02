package pid1

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	orphanMakers = 10
	orphansEach  = 1000
	runners      = 50
)

// TestOrphans has processes forked twice, so that the kernel hands each of them
// to process 1, while the agent runs programs of its own and wants their codes.
func TestOrphans(t *testing.T) {
	out := mainInNamespace(t, "orphans")
	if want := "orphans: all collected, no code lost\n"; !strings.Contains(out, want) {
		t.Errorf("printed %q, want %q in it", out, want)
	}
	t.Log(out)
}

// makeOrphans is the agent's side: it prints what it saw.
func makeOrphans() {
	var made, running sync.WaitGroup
	var over atomic.Bool
	var wrong, ran atomic.Int64
	for i := range runners {
		running.Go(func() {
			for !over.Load() {
				if got := exitCode(i + 1); got != i+1 {
					wrong.Add(1)
				}
				ran.Add(1)
			}
		})
	}
	for range orphanMakers {
		made.Go(func() {
			script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do (true &); i=$((i+1)); done", orphansEach)
			if err := exec.Command("/bin/sh", "-c", script).Run(); err != nil {
				fmt.Println("make orphans:", err)
			}
		})
	}
	made.Wait()
	over.Store(true)
	running.Wait()
	last, _ := os.ReadFile("/proc/sys/kernel/ns_last_pid")
	fmt.Printf("orphans: %d programs ran, last pid %s", ran.Load(), last)
	left := othersLeft(10 * time.Second)
	var pid int
	if _, err := fmt.Sscan(string(last), &pid); err != nil || pid-int(ran.Load()) < 2*orphanMakers*orphansEach {
		fmt.Printf("orphans: last pid %d, %v: too few processes\n", pid, err)
		return
	}
	if wrong.Load() == 0 && ran.Load() >= runners && len(left) == 0 {
		fmt.Println("orphans: all collected, no code lost")
		return
	}
	fmt.Printf("orphans: %d wrong codes, left: %q\n", wrong.Load(), left)
}

func exitCode(want int) int {
	err := exec.Command("/bin/sh", "-c", fmt.Sprintf("exit %d", want)).Run()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return failed.ExitCode()
	}
	return -1
}

// othersLeft waits until there is no process but process 1 and this one, zombies
// included, and returns those that stay.
func othersLeft(patience time.Duration) []string {
	self := fmt.Sprint(os.Getpid())
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		all, _ := filepath.Glob("/proc/[0-9]*")
		var left []string
		for _, dir := range all {
			if pid := filepath.Base(dir); pid != "1" && pid != self {
				stat, _ := os.ReadFile(dir + "/stat")
				left = append(left, string(stat))
			}
		}
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
	}
}
