package kbs_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/kbs"
	"github.com/coffer-cc/coffer/evidence/tee"
)

func TestEpochEndsASession(t *testing.T) {
	k := evidencetest.NewKBS(t, options())
	var epoch atomic.Uint64
	c := newClient(t, kbs.Config{URL: k.URL, Epoch: epoch.Load})
	wantContents(t, c)
	wantContents(t, c)
	if n := k.Count("attest"); n != 1 {
		t.Fatalf("%d attestations in one epoch", n)
	}
	epoch.Add(1)
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() { wantContents(t, c) })
	}
	wait.Wait()
	if n := k.Count("attest"); n != 2 {
		t.Errorf("%d attestations in two epochs", n)
	}
}

// A handshake that began before the change does not count after it, and who
// asked before the change is content with it.
func TestEpochBeginsDuringAHandshake(t *testing.T) {
	k := evidencetest.NewKBS(t, options())
	var epoch atomic.Uint64
	hold, entered := make(chan struct{}), make(chan struct{}, 2)
	collector := &evidencetest.Collector{Inner: tee.Sample(), Hold: hold, Entered: func() { entered <- struct{}{} }}
	c := newClient(t, kbs.Config{URL: k.URL, Collector: collector, Epoch: epoch.Load})
	var wait sync.WaitGroup
	wait.Go(func() { wantContents(t, c) })
	<-entered
	epoch.Add(1)
	asked := make(chan struct{})
	wait.Go(func() {
		close(asked)
		wantContents(t, c)
	})
	<-asked
	close(hold)
	wait.Wait()
	if n := k.Count("attest"); n != 2 {
		t.Errorf("%d attestations, want one for each epoch", n)
	}
}
