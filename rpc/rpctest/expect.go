package rpctest

import (
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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
	applies      func(l *Life, u *unit) bool // nil: always
}

var differences = []difference{
	{"clh-mgmt-block-policy", "GetIPTables", codes.Unimplemented, "this machine has no iptables", nil},
	{"clh-mgmt-block-policy", "SetIPTables", codes.Unimplemented, "this machine has no iptables", nil},
	{"clh-mgmt-block-policy", "GetVolumeStats", codes.NotFound, "its disk needs a virtual machine", nil},
	{"clh-mgmt-block-policy", "ResizeVolume", codes.NotFound, "its disk needs a virtual machine", nil},
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

func noProgram(l *Life, u *unit) bool { return l.commands()[keyOf(u.Request)] == "/no/such" }

func removed(l *Life, u *unit) bool {
	return slices.ContainsFunc(l.Calls, func(c *Call) bool {
		return c.Method == "RemoveContainer" && c.End <= u.Start && keyOf(c.Request) == keyOf(u.Request)
	})
}

// afterPolicy is true of calls after a second SetPolicy, and of those that only
// ended because of such calls.
func afterPolicy(l *Life, u *unit) bool {
	seen := 0
	for _, c := range l.Calls {
		if c.Method == "SetPolicy" && c.End < u.end {
			seen++
		}
	}
	return seen > 1
}

func (l *Life) excused(u *unit) bool {
	return slices.ContainsFunc(differences, func(d difference) bool {
		return strings.HasPrefix(l.Name(), d.life) && (d.method == "" || d.method == u.Method) &&
			d.code == status.Code(u.err) && (d.applies == nil || d.applies(l, u))
	})
}
