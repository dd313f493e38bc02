package evidence_test

import (
	"encoding/json"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
)

func TestUnbound(t *testing.T) {
	e := evidence.Evidence{Kind: evidence.SE, Data: json.RawMessage(`{"user_data":"AA==","n":18446744073709551615}`)}
	got, err := e.Unbound()
	if want := `{"initdata":"unbound","n":18446744073709551615,"user_data":"AA=="}`; err != nil || string(got.Data) != want || got.Kind != evidence.SE {
		t.Errorf("Unbound = %s, %v, want %s", got.Data, err, want)
	}
	if e.SaysUnbound() || !got.SaysUnbound() {
		t.Errorf("SaysUnbound = %v before and %v after", e.SaysUnbound(), got.SaysUnbound())
	}
	for _, data := range []string{"", "null", "[]", `"unbound"`} {
		e := evidence.Evidence{Data: json.RawMessage(data)}
		if got, err := e.Unbound(); !errdefs.IsDataLoss(err) || e.SaysUnbound() {
			t.Errorf("%q: %s, %v", data, got.Data, err)
		}
	}
	for _, data := range []string{`{"initdata":"bound"}`, `{"initdata":null}`, `{"initdata":true}`} {
		if (evidence.Evidence{Data: json.RawMessage(data)}).SaysUnbound() {
			t.Errorf("%s is taken for it", data)
		}
	}
}
