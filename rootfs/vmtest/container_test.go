package vmtest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

const mebibyte = 1 << 20

// randomBytes are the same in each run and do not repeat within it.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(rand.NewChaCha8([32]byte{1}), b); err != nil {
		panic(err)
	}
	return b
}

// TestMebibyteEachWay sends one message of 1 MiB through a container and back:
// more than a vsock device program takes in one packet.
func TestMebibyteEachWay(t *testing.T) {
	g := Shared(t)
	g.start(t, "echo", containerSpec("echo", "cat"))
	sent := randomBytes(mebibyte)
	written := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		r, err := g.Agent.WriteStdin(ctx, &agentpb.WriteStreamRequest{ContainerId: "echo", ExecId: "echo", Data: sent})
		if err == nil && r.Len != mebibyte {
			err = fmt.Errorf("%d bytes were taken", r.Len)
		}
		_, closed := g.Agent.CloseStdin(ctx, &agentpb.CloseStdinRequest{ContainerId: "echo", ExecId: "echo"})
		written <- errors.Join(err, closed)
	}()
	start := time.Now()
	got := g.output(t, "echo")
	if err := <-written; err != nil {
		t.Error(err)
	}
	if got != string(sent) {
		t.Errorf("got %d bytes back, not the %d sent", len(got), len(sent))
	}
	t.Logf("1 MiB there and back in %v", time.Since(start).Round(time.Millisecond))
	if code := g.wait(t, "echo"); code != 0 {
		t.Errorf("cat ended with %d", code)
	}
}

func TestCopyFile(t *testing.T) {
	g := Shared(t)
	data := randomBytes(mebibyte)
	path := sharedDir + "busybox/rootfs/data/copied"
	call(t, g.Agent.CopyFile, &agentpb.CopyFileRequest{
		Path: path, FileSize: int64(len(data)), FileMode: unix.S_IFREG | 0o640, DirMode: unix.S_IFDIR | 0o750, Data: data,
	})
	want := fmt.Sprintf("%x  /data/copied\n", sha256.Sum256(data))
	if got := g.run(t, "sum", "sha256sum", "/data/copied"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestExitCodes(t *testing.T) {
	g := Shared(t)
	g.start(t, "codes", containerSpec("codes", "sleep", "1000"))
	for i, tc := range []struct {
		script string
		want   int32
	}{
		{"exit 0", 0}, {"exit 7", 7}, {"kill -9 $$", 128 + 9}, {"kill -15 $$", 128 + 15},
	} {
		t.Run(tc.script, func(t *testing.T) {
			id := fmt.Sprintf("exec%d", i)
			call(t, g.Agent.ExecProcess, &agentpb.ExecProcessRequest{ContainerId: "codes", ExecId: id,
				Process: &agentpb.Process{User: &agentpb.User{}, Args: []string{"sh", "-c", tc.script}, Env: []string{"PATH=/bin"}, Cwd: "/"}})
			r := call(t, g.Agent.WaitProcess, &agentpb.WaitProcessRequest{ContainerId: "codes", ExecId: id})
			if r.Status != tc.want {
				t.Errorf("got %d, want %d", r.Status, tc.want)
			}
		})
	}
	call(t, g.Agent.SignalProcess, &agentpb.SignalProcessRequest{ContainerId: "codes", ExecId: "codes", Signal: uint32(unix.SIGTERM)})
	if code := g.wait(t, "codes"); code != 128+9 {
		t.Errorf("sleep as init ended with %d after SIGTERM, want 137", code)
	}
}

// TestMemoryLimit needs cgroup v2 with its memory controller, which the
// machines that build seldom have.
func TestMemoryLimit(t *testing.T) {
	g := Shared(t)
	spec := containerSpec("hungry", "tail", "/dev/zero")
	spec.Linux.Resources.Memory = &agentpb.LinuxMemory{Limit: 32 * mebibyte, Swap: 32 * mebibyte}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	type event struct {
		id  string
		err error
	}
	events := make(chan event, 1)
	go func() {
		r, err := g.Agent.GetOOMEvent(ctx, &agentpb.GetOOMEventRequest{})
		events <- event{r.GetContainerId(), err}
	}()
	g.start(t, "hungry", spec)
	if code := g.wait(t, "hungry"); code != 128+9 {
		t.Errorf("ended with %d, want 137", code)
	}
	if e := <-events; e.err != nil || e.id != "hungry" {
		t.Errorf("out-of-memory event for %q, error %v", e.id, e.err)
	}
}

func TestLimitsAndStats(t *testing.T) {
	g := Shared(t)
	spec := containerSpec("limited", "sleep", "1000")
	spec.Linux.Resources.Memory = &agentpb.LinuxMemory{Limit: 64 * mebibyte}
	g.start(t, "limited", spec)
	limit := func() uint64 {
		r := call(t, g.Agent.StatsContainer, &agentpb.StatsContainerRequest{ContainerId: "limited"})
		if r.CgroupStats.CpuStats.CpuUsage.TotalUsage == 0 || r.CgroupStats.PidsStats.Current == 0 {
			t.Errorf("statistics are %v", r.CgroupStats)
		}
		return r.CgroupStats.MemoryStats.Usage.Limit
	}
	if got := limit(); got != 64*mebibyte {
		t.Errorf("memory limit is %d", got)
	}
	call(t, g.Agent.UpdateContainer, &agentpb.UpdateContainerRequest{ContainerId: "limited",
		Resources: &agentpb.LinuxResources{Memory: &agentpb.LinuxMemory{Limit: 128 * mebibyte}}})
	if got := limit(); got != 128*mebibyte {
		t.Errorf("memory limit is %d after the update", got)
	}
	call(t, g.Agent.PauseContainer, &agentpb.PauseContainerRequest{ContainerId: "limited"})
	call(t, g.Agent.ResumeContainer, &agentpb.ResumeContainerRequest{ContainerId: "limited"})
}

// TestPivotRoot sees a container confined to its root although the guest's
// own root is an initramfs, from which the kernel refuses to pivot.
func TestPivotRoot(t *testing.T) {
	g := Shared(t)
	mounts := g.run(t, "mounts", "cat", "/proc/self/mountinfo")
	for line := range strings.Lines(mounts) {
		if point := strings.Fields(line)[4]; strings.HasPrefix(point, "/run/kata-containers") || point == "/init" {
			t.Errorf("the container sees the guest's mount %s", point)
		}
	}
}

func BenchmarkCreate(b *testing.B) {
	g := Shared(b)
	for b.Loop() {
		call(b, g.Agent.CreateContainer, &agentpb.CreateContainerRequest{ContainerId: "b", ExecId: "b", OCI: containerSpec("b", "true")})
		call(b, g.Agent.StartContainer, &agentpb.StartContainerRequest{ContainerId: "b"})
		g.wait(b, "b")
		call(b, g.Agent.RemoveContainer, &agentpb.RemoveContainerRequest{ContainerId: "b"})
	}
}
