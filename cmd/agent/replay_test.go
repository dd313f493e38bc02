package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/coffer-cc/coffer/agent/ocispec"
	"github.com/coffer-cc/coffer/mount"
	"github.com/coffer-cc/coffer/protos/agentpb"
)

// outcomes says what the programs of the recorded lives print and return.
var outcomes = map[string]struct {
	code           int32
	stdout, stderr []string
}{
	"sleep 1000": {code: 137},
	"/pause":     {code: 137},
	"sh -c echo start; echo warn >&2; cat /etc/config/key1 /etc/hosts /etc/resolv.conf; trap 'echo bye; exit 3' TERM; while true; do sleep 0.1; done": {
		3, []string{"start\nvalue1\n127.0.0.1 localhost\n", "nameserver 10.96.0.10\n", "bye\n"}, []string{"warn\n"},
	},
	"sh -c echo two; exit 9":                         {9, []string{"two\n"}, nil},
	"sh -c echo out; echo err >&2; hostname; exit 4": {4, []string{"out\npod1\n"}, []string{"err\n"}},
	"cat":                 {0, []string{"hello via stdin\n"}, nil},
	"sh -c tty; echo tty": {0, []string{"/dev/pts/0\r\ntty\r\n"}, nil},
	"ps":                  {0, []string{"sleep 1000"}, nil},
	"sh -c exit 42":       {code: 42},
	"echo tty-exec":       {0, []string{"tty-exec\r\n"}, nil},
	"sh -c echo sec":      {0, []string{"sec\n"}, nil},
	"sh":                  {5, []string{"/dev/pts/0\r\n", "in-tty\r\n"}, nil},
	"/no/such":            {},
	"sh -c id; pwd; echo $A; ls -lR /mnt/h; cat /etc/ff": {0, []string{"uid=65534", "/tmp\n", "lnk -> f", "data\n"}, nil},
	"sh -c echo out; echo err >&2; id; hostname; ls /; cat /proc/mounts | head -5; exit 7": {
		7, []string{"out\nuid=0", "\nbin\n", " / "}, []string{"err\n"},
	},
}

// difference is a call that the stub answered and this agent rightly refuses.
type difference struct {
	life, method string // of method, "" is every
	code         codes.Code
	why          string
	applies      func(l *life, u *unit) bool // nil: always
}

var differences = []difference{
	{"clh-mgmt-block-policy", "GetIPTables", codes.Unimplemented, "not in this version", nil},
	{"clh-mgmt-block-policy", "SetIPTables", codes.Unimplemented, "not in this version", nil},
	{"clh-mgmt-block-policy", "GetVolumeStats", codes.Unimplemented, "not in this version", nil},
	{"clh-mgmt-block-policy", "ResizeVolume", codes.Unimplemented, "not in this version", nil},
	{"", "ExecProcess", codes.Internal, "the program does not exist; the stub only sometimes said so", noProgram},
	{"", "ReadStdout", codes.NotFound, "the process never was", noProgram},
	{"", "ReadStderr", codes.NotFound, "the process never was", noProgram},
	{"", "WaitProcess", codes.NotFound, "the process never was", noProgram},
	{"", "StatsContainer", codes.InvalidArgument, "the container was removed before", removed},
	{"remote-ctr-tty-mounts/c1", "TtyWinResize", codes.NotFound, "sent when the process may have ended", nil},
	{"remote-ctr-tty-mounts/c1", "TtyWinResize", codes.Unavailable, "sent when the process may have ended", nil},
	{"remote-ctr-tty-mounts/c1", "WriteStdin", codes.NotFound, "sent when the process may have ended", nil},
	{"clh-mgmt-block-policy/g1", "", codes.Internal, "the new policy has no rules, so nothing is allowed any more", afterPolicy},
	{"clh-mgmt-block-policy/g1", "", codes.Unknown, "the process could not be killed, so its streams ended with the connection", afterPolicy},
}

func noProgram(l *life, u *unit) bool { return l.commands()[keyOf(u.request)] == "/no/such" }

func removed(l *life, u *unit) bool {
	return slices.ContainsFunc(l.calls, func(c *call) bool {
		return c.Method == "RemoveContainer" && c.End <= u.Start && keyOf(c.request) == keyOf(u.request)
	})
}

// afterPolicy is true of calls after a second SetPolicy, and of those that only
// ended because of such calls.
func afterPolicy(l *life, u *unit) bool {
	seen := 0
	for _, c := range l.calls {
		if c.Method == "SetPolicy" && c.End < u.end {
			seen++
		}
	}
	return seen > 1
}

func (l *life) excused(u *unit) bool {
	return slices.ContainsFunc(differences, func(d difference) bool {
		return strings.HasPrefix(l.name(), d.life) && (d.method == "" || d.method == u.Method) &&
			d.code == status.Code(u.err) && (d.applies == nil || d.applies(l, u))
	})
}

// unit is what is sent in one go: a call, or the reads of a stream. How a
// stream falls into reads is chance, so a unit repeats the one read that all of
// them are until the end of the stream, as shims do.
type unit struct {
	*call
	end      float64
	after    []*unit
	answered chan struct{}
	err      error
	got      proto.Message
	data     []byte
}

func isRead(c *call) bool { return c.Method == "ReadStdout" || c.Method == "ReadStderr" }

// units orders a life as the shim did: a call is sent when all those that had
// ended before its start have been answered.
func (l *life) units() []*unit {
	type stream struct {
		processKey
		method string
	}
	reads := map[stream]*unit{}
	var out []*unit
	for _, c := range l.calls {
		s := stream{keyOf(c.request), c.Method}
		if u := reads[s]; u != nil && isRead(c) {
			u.end = max(u.end, c.End)
			continue
		}
		u := &unit{call: c, end: c.End, answered: make(chan struct{})}
		if isRead(c) {
			reads[s] = u
		}
		out = append(out, u)
	}
	for _, u := range out {
		for _, v := range out {
			forever := v.Method == "GetOOMEvent" || isRead(v.call) && afterPolicy(l, v)
			if v != u && v.end >= 0 && v.end <= u.Start && !forever {
				u.after = append(u.after, v)
			}
		}
	}
	return out
}

func (u *unit) run(client *ttrpc.Client) {
	defer close(u.answered)
	for _, v := range u.after {
		<-v.answered
	}
	for {
		ctx, cancel := context.Background(), context.CancelFunc(func() {})
		if u.Timeout > 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(u.Timeout*float64(time.Second)))
		}
		u.got = u.reply.New().Interface()
		u.err = client.Call(ctx, u.Service, u.Method, u.request, u.got)
		cancel()
		r, ok := u.got.(*agentpb.ReadStreamResponse)
		if !ok || u.err != nil || len(r.GetData()) == 0 {
			return
		}
		u.data = append(u.data, r.GetData()...)
	}
}

// TestReplay leads the agent through everything that a real shim did to pods.
func TestReplay(t *testing.T) {
	if !inGuest(t) {
		return
	}
	lives := readLives(t)
	replay(t, lives[0]) // for what is opened once
	before := leftovers(t)
	for _, l := range readLives(t) {
		t.Run(l.name(), func(t *testing.T) { replay(t, l) })
		sameLeftovers(t, before, leftovers(t))
	}
}

func replay(t *testing.T, l *life) {
	stage(t, l)
	build, pulls := builder(realAgent), &images{}
	if strings.Contains(l.file, "guestpull") {
		build = pullingAgent(pulls)
	}
	agent := bootAgent(t, allowAll, build)
	units := l.units()
	for _, u := range units {
		go u.run(agent.client)
	}
	last := units[len(units)-1]
	select {
	case <-last.answered:
	case <-time.After(20 * time.Second):
		for _, u := range units {
			select {
			case <-u.answered:
			default:
				t.Errorf("not answered: %d %s", u.Seq, u.Method)
			}
		}
	}
	agent.client.Close() // as the shim does
	agent.end(t)
	for _, u := range units {
		<-u.answered
		l.judge(t, u)
	}
	slices.Sort(pulls.pulled)
	slices.Sort(pulls.released)
	if !slices.Equal(pulls.pulled, pulls.released) {
		t.Errorf("images pulled for %v, released for %v", pulls.pulled, pulls.released)
	}
	strike(t)
}

// judge says whether a unit was answered as it should.
func (l *life) judge(t *testing.T, u *unit) {
	t.Helper()
	if u.Method == "GetOOMEvent" {
		if !errors.Is(u.err, ttrpc.ErrClosed) {
			t.Errorf("%d %s: %v, want no answer", u.Seq, u.Method, u.err)
		}
		return
	}
	if u.err != nil {
		if !l.excused(u) {
			t.Errorf("%d %s: %v", u.Seq, u.Method, u.err)
		}
		return
	}
	command := l.commands()[keyOf(u.request)]
	want, known := outcomes[command]
	switch {
	case !known && (isRead(u.call) || u.Method == "WaitProcess"):
		t.Errorf("%q has no line in this test", command)
	case u.Method == "ReadStdout":
		contains(t, command+" stdout", u.data, want.stdout)
	case u.Method == "ReadStderr":
		contains(t, command+" stderr", u.data, want.stderr)
	case u.Method == "WaitProcess":
		if code := u.got.(*agentpb.WaitProcessResponse).GetStatus(); code != want.code {
			t.Errorf("%d: %q returned %d, want %d", u.Seq, command, code, want.code)
		}
	default:
		judgeReply(t, u)
	}
}

func contains(t *testing.T, what string, got []byte, want []string) {
	t.Helper()
	for _, w := range want {
		if !bytes.Contains(got, []byte(w)) {
			t.Errorf("%s: %q, want %q in it", what, got, w)
		}
	}
	if len(want) == 0 && len(got) > 0 {
		t.Errorf("%s: %q, want nothing", what, got)
	}
}

func judgeReply(t *testing.T, u *unit) {
	t.Helper()
	switch r := u.got.(type) {
	case *agentpb.HealthCheckResponse:
		if r.GetStatus() != agentpb.HealthCheckResponse_SERVING {
			t.Errorf("%d: %v", u.Seq, r)
		}
	case *agentpb.GuestDetailsResponse:
		if r.GetMemBlockSizeBytes() == 0 || r.GetAgentDetails() == nil {
			t.Errorf("%d: %v", u.Seq, r)
		}
	case *agentpb.WriteStreamResponse:
		if want := len(u.request.(*agentpb.WriteStreamRequest).GetData()); int(r.GetLen()) != want {
			t.Errorf("%d: wrote %d of %d", u.Seq, r.GetLen(), want)
		}
	case *agentpb.StatsContainerResponse:
		if r.GetCgroupStats().GetMemoryStats().GetUsage().GetUsage() == 0 {
			t.Errorf("%d: %v", u.Seq, r)
		}
	case *agentpb.Metrics:
		if !strings.Contains(r.GetMetrics(), "coffer_containers") {
			t.Errorf("%d: no metrics of this agent", u.Seq)
		}
	case *agentpb.Routes:
		gateway := u.request.(*agentpb.UpdateRoutesRequest).GetRoutes().GetRoutes()[0].GetGateway()
		if !strings.Contains(r.String(), gateway) {
			t.Errorf("%d: no route over %s in %v", u.Seq, gateway, r)
		}
	}
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
