// Package doctor looks over a guest and says what would keep a pod from running
// in it, with the remedy. Each check is a small function that reads and changes
// nothing; the list is Guest.Checks, and who runs them may add others.
package doctor

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Status of a finding, worst last.
type Status string

// A warning lets pods run, with less protection or room than they might expect.
const (
	OK      Status = "ok"
	Warning Status = "warning"
	Fault   Status = "fault"
)

// Finding is what a check saw. It holds no secret.
type Finding struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

// Check is one thing to look at. Look fills everything but the name.
type Check struct {
	Name string
	Look func(context.Context) Finding
}

func good(format string, args ...any) Finding {
	return Finding{Status: OK, Text: fmt.Sprintf(format, args...)}
}

func warn(remedy, format string, args ...any) Finding {
	return Finding{Status: Warning, Text: fmt.Sprintf(format, args...), Remedy: remedy}
}

func bad(remedy, format string, args ...any) Finding {
	return Finding{Status: Fault, Text: fmt.Sprintf(format, args...), Remedy: remedy}
}

// Run does all checks at the same time, and returns their findings in the order
// of the checks. One that takes longer than limit is a fault, and left behind:
// a file of a broken device cannot be let go of.
func Run(ctx context.Context, checks []Check, limit time.Duration) []Finding {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	findings := make([]Finding, len(checks))
	var wait sync.WaitGroup
	for i, c := range checks {
		wait.Go(func() {
			done := make(chan Finding, 1)
			go func() { done <- c.Look(ctx) }()
			select {
			case findings[i] = <-done:
			case <-ctx.Done():
				findings[i] = late(done, limit)
			}
			findings[i].Check = c.Name
		})
	}
	wait.Wait()
	return findings
}

// late gives a check that heeds its context a moment to say more than that the
// time is over.
func late(done <-chan Finding, limit time.Duration) Finding {
	select {
	case f := <-done:
		return f
	case <-time.After(grace):
		return bad("look for what blocks it: a device, a mount, the host", "no answer within %s", limit)
	}
}

const grace = 100 * time.Millisecond

// Worst is the status of all findings together.
func Worst(findings []Finding) Status {
	worst := OK
	for _, f := range findings {
		if f.Status == Fault || f.Status == Warning && worst == OK {
			worst = f.Status
		}
	}
	return worst
}
