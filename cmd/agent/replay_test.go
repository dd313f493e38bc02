package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/ocispec"
	"github.com/coffer-cc/coffer/mount"
	"github.com/coffer-cc/coffer/rpc/rpctest"
)

// TestReplay leads the agent through everything that a real shim did to pods.
func TestReplay(t *testing.T) {
	if !inGuest(t) {
		return
	}
	lives := rpctest.Lives(t)
	replay(t, lives[0]) // for what is opened once
	before := leftovers(t)
	for _, l := range rpctest.Lives(t) {
		t.Run(l.Name(), func(t *testing.T) { replay(t, l) })
		sameLeftovers(t, before, leftovers(t))
	}
}

func replay(t *testing.T, l *rpctest.Life) {
	stage(t, l)
	build, pulls := builder(realAgent), &images{}
	if strings.Contains(l.File, "guestpull") {
		build = pullingAgent(pulls)
	}
	agent := bootAgent(t, allowAll, build)
	play := l.Start(agent.client)
	play.Wait(t, 20*time.Second)
	agent.client.Close() // as the shim does
	agent.end(t)
	play.Judge(t)
	slices.Sort(pulls.pulled)
	slices.Sort(pulls.released)
	if !slices.Equal(pulls.pulled, pulls.released) {
		t.Errorf("images pulled for %v, released for %v", pulls.pulled, pulls.released)
	}
	strike(t)
}

// strike takes down what the stage and the guest itself leave: in a real guest
// nothing comes after a sandbox.
func strike(t *testing.T) {
	t.Helper()
	if err := unix.Unmount("/etc/resolv.conf", unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
	table, err := mount.Table(ocispec.Base)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range table {
		t.Errorf("left mounted: %s", e.Target)
		_ = unix.Unmount(e.Target, unix.MNT_DETACH)
	}
	bundles, err := filepath.Glob(ocispec.Base + "/*/config.json")
	if err != nil || len(bundles) > 0 {
		t.Errorf("left: %v, %v", bundles, err)
	}
	if err := os.RemoveAll(ocispec.Base); err != nil {
		t.Error(err)
	}
}
