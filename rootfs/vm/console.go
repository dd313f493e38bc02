package vm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/errdefs"
)

// consoleLimit bounds what is kept: a guest in a panic loop may write for ever.
const consoleLimit = 256 << 10

// A console keeps the end of everything written to it.
type console struct {
	mu      sync.Mutex // guards the rest
	kept    []byte
	changed chan struct{} // closed and replaced at each write
	tee     io.Writer     // may be nil
}

func newConsole(tee io.Writer) *console {
	return &console{changed: make(chan struct{}), tee: tee}
}

// Write never fails: a watcher that went away must not end the machine.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tee != nil {
		c.tee.Write(p)
	}
	c.kept = append(c.kept, p...)
	if extra := len(c.kept) - consoleLimit; extra > 0 {
		c.kept = append(c.kept[:0], c.kept[extra:]...)
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return len(p), nil
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.kept)
}

// wait returns when text has been written, or with an error when ended is
// closed before that.
func (c *console) wait(ctx context.Context, text string, ended <-chan struct{}) error {
	for {
		over := false
		select {
		case <-ended:
			over = true
		default:
		}
		c.mu.Lock()
		found, changed := bytes.Contains(c.kept, []byte(text)), c.changed
		c.mu.Unlock()
		if found {
			return nil
		}
		if over {
			return fmt.Errorf("vm ended without %q on its console: %w", text, errdefs.ErrNotFound)
		}
		select {
		case <-changed:
		case <-ended:
		case <-ctx.Done():
			return fmt.Errorf("wait for %q on the console: %w", text, ctx.Err())
		}
	}
}
