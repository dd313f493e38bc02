package rpc

import (
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/coffer-cc/coffer/agent/clock"
	"github.com/coffer-cc/coffer/agent/config"
	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/agent/memagent"
	"github.com/coffer-cc/coffer/agent/network"
	"github.com/coffer-cc/coffer/mount/device"
	"github.com/coffer-cc/coffer/protos/agentpb"
)

// TestConfidentialGuestRefuses asks a guest on a TEE, whose policy allows all,
// for what would open it to its host. The same guest without a TEE takes the
// same requests for what they are.
func TestConfidentialGuestRefuses(t *testing.T) {
	memory := config.Default().MemAgent
	memory.Enable = true
	for name, tc := range map[string]struct {
		req   proto.Message
		plain codes.Code // without a TEE
		text  string
	}{
		"AddSwap":          {&agentpb.AddSwapRequest{PCIPath: []uint32{2, 3}}, codes.Unavailable, "PCIPath"},
		"AddSwapPath":      {&agentpb.AddSwapPathRequest{Path: "/dev/vdz"}, codes.Unavailable, "path"},
		"SetGuestDateTime": {&agentpb.SetGuestDateTimeRequest{Sec: 1}, codes.InvalidArgument, "Sec"},
		"SetIPTables":      {&agentpb.SetIPTablesRequest{Data: []byte("*nat\nCOMMIT\n")}, codes.Unimplemented, "iptables"},
		// The kernel of a machine that runs tests may have what it takes or not.
		"MemAgentMemcgSet": {&agentpb.MemAgentMemcgConfig{Swap: ptrTo(true)}, codes.OK, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			f.deps.Swap = guest.Swap{Devices: &device.Finder{Sys: t.TempDir(), Timeout: 1}}
			f.deps.MemAgent, f.deps.Clock = memagent.New(memory, memagent.DefaultPaths()), clock.New()
			f.deps.IPTables = network.IPTables{Dirs: []string{t.TempDir()}} // no programs
			ask := func() error {
				_, err := f.agentMethods()[name](t.Context(), func(v any) error {
					proto.Merge(v.(proto.Message), tc.req)
					return nil
				})
				return err
			}
			f.deps.Confidential = true
			before, _ := os.ReadFile("/proc/swaps")
			wantCode(t, ask(), codes.PermissionDenied, "this guest is confidential: ")
			if after, _ := os.ReadFile("/proc/swaps"); string(after) != string(before) {
				t.Errorf("swap is now\n%s", after)
			}
			f.deps.Confidential = false
			err := ask()
			if tc.plain != codes.OK {
				wantCode(t, err, tc.plain, tc.text)
			} else if err != nil && strings.Contains(err.Error(), "confidential") {
				t.Errorf("without a TEE: %v", err)
			}
		})
	}
}

// A policy that denies is heard before the guest says what it is.
func TestPolicyComesFirst(t *testing.T) {
	f := newFixture(t, nil)
	f.deps.Confidential = true
	f.rules.deny("AddSwapRequest")
	_, err := f.agentMethods()["AddSwap"](t.Context(), func(any) error { return nil })
	wantCode(t, err, codes.PermissionDenied, "because")
}
