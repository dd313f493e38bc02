package tee

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/cca"
	"github.com/coffer-cc/coffer/evidence/tsm"
)

const ccaProvider = "arm_cca_guest"

// cca is a realm of Arm CCA. The kernel makes the platform device by itself, so
// it shows the platform also where the driver is missing.
func (h host) cca() Driver {
	return Driver{
		Kind:    evidence.CCA,
		Signs:   "/sys/devices/platform/arm-cca-dev, report provider " + ccaProvider,
		Present: func() bool { return h.exists("sys/devices/platform/arm-cca-dev") || h.reporter(ccaProvider) },
		Open:    func() (evidence.Collector, error) { return &ccaRealm{host: h, turn: newTurn()}, nil },
	}
}

// ccaRealm collects tokens of the realm management monitor.
type ccaRealm struct {
	host host
	turn turn
}

// Kind is evidence.CCA.
func (c *ccaRealm) Kind() evidence.Kind { return evidence.CCA }

// Collect returns what Trustee reads (deps/verifier/src/cca): the token, whose
// challenge is the report data.
func (c *ccaRealm) Collect(ctx context.Context, rd evidence.ReportData) (evidence.Evidence, error) {
	token, _, err := c.token(ctx, rd.Padded())
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("collect cca evidence: %w", err)
	}
	numbers := make([]uint16, len(token)) // as []byte it would become base64
	for i, b := range token {
		numbers[i] = uint16(b)
	}
	data, err := json.Marshal(struct {
		Token []uint16 `json:"token"`
	}{numbers})
	return evidence.Evidence{Kind: evidence.CCA, Data: data}, err
}

// LaunchAnchor returns the realm personalization value. The host sets it when
// it makes the realm, and no more after that. The token says it, and comes from
// the monitor into memory of the realm by a call that traps to the monitor and
// not to the host. So the value is as good here as it is behind a signature.
func (c *ccaRealm) LaunchAnchor(ctx context.Context) ([]byte, error) {
	_, realm, err := c.token(ctx, [64]byte{})
	if err != nil {
		return nil, fmt.Errorf("read the realm personalization value: %w", err)
	}
	return realm.Personalization[:], nil
}

// token asks for a token over the challenge and checks that it is one.
func (c *ccaRealm) token(ctx context.Context, challenge [64]byte) ([]byte, cca.Realm, error) {
	token, err := ask(ctx, c.turn, func() ([]byte, error) {
		r, err := tsm.Get(c.host.reports, tsm.Request{Provider: ccaProvider, In: challenge})
		return r.Out, evidence.DriverConfigfs.Wrap(err)
	})
	if err != nil {
		return nil, cca.Realm{}, err
	}
	realm, err := cca.Parse(token)
	if err == nil && realm.Challenge != challenge {
		err = fmt.Errorf("the token is for another challenge: %w", errdefs.ErrDataLoss)
	}
	return token, realm, evidence.DriverReply.Wrap(err)
}
