package main

import (
	"strings"
	"testing"
	"time"

	"github.com/coffer-cc/coffer/agent/clock"
	"github.com/coffer-cc/coffer/agent/guest"
)

func TestClockMetrics(t *testing.T) {
	var e guest.Exposition
	clockMetrics(&e, clock.State{Source: "ptp_kvm", Offset: -250 * time.Millisecond, Steps: 3, Raised: true})
	for _, want := range []string{
		"coffer_clock_offset_seconds{source=\"ptp_kvm\"} -0.25\n", "coffer_clock_steps_total 3\n", "coffer_clock_raised 1\n",
	} {
		if !strings.Contains(e.String(), want) {
			t.Errorf("%q is not in %s", want, e.String())
		}
	}
	e = guest.Exposition{}
	clockMetrics(&e, clock.State{})
	if strings.Contains(e.String(), "offset") {
		t.Errorf("an offset from no source: %s", e.String())
	}
}

// A guest that another init has booted keeps its clock.
func TestClockOfAService(t *testing.T) {
	p := &process{} // without a keeper: using one would end the test
	if err := p.keepClock(); err != nil {
		t.Error(err)
	}
	if err := p.followHost(); err != nil {
		t.Error(err)
	}
}
