// Package evidencetest provides platforms and key brokers for tests. They
// behave like the real ones, count what is asked of them, and can be told to
// refuse, to wait or to lie.
package evidencetest

import (
	"context"
	"encoding/json"
	"sync/atomic"

	"github.com/coffer-cc/coffer/evidence"
)

// Collector wraps a real collector. Set the fields before its first use.
type Collector struct {
	Inner evidence.Collector

	// As replaces the name of the platform; the evidence stays what it is.
	As evidence.Kind
	// Entered, if not nil, is called at the start of every Collect.
	Entered func()
	// Hold makes Collect wait until it is closed or the context ends.
	Hold <-chan struct{}
	// Err refuses every call.
	Err error
	// Corrupt may change the evidence on its way out.
	Corrupt func(json.RawMessage) json.RawMessage

	calls atomic.Int64
}

// Calls counts how often evidence was asked for.
func (c *Collector) Calls() int { return int(c.calls.Load()) }

// Kind names the platform.
func (c *Collector) Kind() evidence.Kind {
	if c.As != "" {
		return c.As
	}
	return c.Inner.Kind()
}

// Collect asks the inner collector, as scripted.
func (c *Collector) Collect(ctx context.Context, rd evidence.ReportData) (evidence.Evidence, error) {
	c.calls.Add(1)
	if c.Entered != nil {
		c.Entered()
	}
	if c.Hold != nil {
		select {
		case <-c.Hold:
		case <-ctx.Done():
			return evidence.Evidence{}, ctx.Err()
		}
	}
	if c.Err != nil {
		return evidence.Evidence{}, c.Err
	}
	e, err := c.Inner.Collect(ctx, rd)
	if err == nil && c.Corrupt != nil {
		e.Data = c.Corrupt(e.Data)
	}
	if err == nil {
		e.Kind = c.Kind()
	}
	return e, err
}
