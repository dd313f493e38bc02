package evidence

import (
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
)

// unboundMember stands beside the members that verifiers read, which pass over
// those that they do not know.
const (
	unboundMember = "initdata"
	unboundValue  = "unbound"
)

// Unbound returns the evidence with the guest's word that no hardware vouches
// for the initdata in force. It is no more than its word: the platform does not
// sign it, and evidence without it proves nothing.
func (e Evidence) Unbound() (Evidence, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(e.Data, &members); err != nil || members == nil {
		return Evidence{}, fmt.Errorf("mark %s evidence as unbound: it is no object: %w", e.Kind, errdefs.ErrDataLoss)
	}
	members[unboundMember] = json.RawMessage(`"` + unboundValue + `"`)
	data, err := json.Marshal(members)
	return Evidence{Kind: e.Kind, Data: data}, err
}

// SaysUnbound tells whether the guest says so.
func (e Evidence) SaysUnbound() bool {
	var members map[string]json.RawMessage
	var value string
	return json.Unmarshal(e.Data, &members) == nil &&
		json.Unmarshal(members[unboundMember], &value) == nil && value == unboundValue
}
