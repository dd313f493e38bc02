package kbs_test

import (
	"os"
	"runtime"
	"testing"
	"time"
)

// held is what this process holds open.
type held struct{ goroutines, files int }

func heldNow(t *testing.T) held {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return held{runtime.NumGoroutine(), len(files)}
}

// wantAgain gives what ends with a connection the time to end.
func (h held) wantAgain(t *testing.T) {
	t.Helper()
	now := heldNow(t)
	for end := time.Now().Add(10 * time.Second); (now.goroutines > h.goroutines || now.files > h.files) && time.Now().Before(end); now = heldNow(t) {
		time.Sleep(time.Millisecond)
	}
	if now.goroutines > h.goroutines || now.files > h.files {
		stacks := make([]byte, 64<<10)
		t.Errorf("before %+v, now %+v\n%s", h, now, stacks[:runtime.Stack(stacks, true)])
	}
}
