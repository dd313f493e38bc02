package vmtest

import (
	"os"
	"testing"

	"github.com/coffer-cc/coffer/agent/policy"
	"github.com/coffer-cc/coffer/protos/agentpb"
)

// TestPolicies sees that the policies in images decide every request of the
// protocol, in the engine that the agent has.
func TestPolicies(t *testing.T) {
	if inside() {
		t.Skip("reads files of the source tree")
	}
	for _, tc := range []struct {
		path string
		want bool
	}{
		{"testdata/allow-all.rego", true},
		{"../image/default-policy.rego", false},
	} {
		t.Run(tc.path, func(t *testing.T) {
			text, err := os.ReadFile(tc.path)
			if err != nil {
				t.Fatal(err)
			}
			engine := policy.New()
			if err := engine.Replace(t.Context(), string(text)); err != nil {
				t.Fatal(err)
			}
			methods := agentpb.File_protos_agent_proto.Services().ByName("AgentService").Methods()
			if methods.Len() == 0 {
				t.Fatal("the protocol has no methods")
			}
			for i := range methods.Len() {
				request := string(methods.Get(i).Input().Name())
				got, err := engine.Allow(t.Context(), request, policy.JSON([]byte("{}")))
				if err != nil || got.Allowed != tc.want {
					t.Errorf("%s: allowed %v, error %v", request, got.Allowed, err)
				}
			}
		})
	}
}
