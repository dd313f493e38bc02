package verify_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/measure"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// expected is an event as Trustee reads it.
type expected struct {
	Details struct {
		String  string
		Unicode string `json:"unicode_name"`
		Data    struct {
			Domain, Operation string
			Content           json.RawMessage // a text, or what the text holds
		}
	}
	Matches bool `json:"digest_matches_event"`
	Digests []struct{ Alg, Digest string }
	Event   []byte
	Index   uint32
	Type    string `json:"type_name"`
}

// readings are logs with Trustee's reading of them.
var readings = map[string]string{
	"CCEL_data.gz": "CCEL_data_out.json", "CCEL_data_ovmf.gz": "CCEL_data_ovmf_out.json", "CCEL_data_csv.gz": "CCEL_data_csv_out.json.gz",
	"CCEL_data_grub.gz": "CCEL_data_grub_out.json.gz", "CCEL_data_grub_gke.gz": "CCEL_data_grub_gke_out.json.gz",
	"CCEL_AAEL_alibabacloud.gz": "CCEL_AAEL_alibabacloud_out.json.gz",
}

// recordedLog has an end mark, which one of the files lacks.
func recordedLog(t testing.TB, file string) []byte {
	log := evidencetest.Fixture(t, "eventlog/"+file)
	if strings.Contains(file, "AAEL") {
		log = append(log, bytes.Repeat([]byte{0xff}, 8)...)
	}
	return log
}

func TestLogReadings(t *testing.T) {
	for file, reading := range readings {
		t.Run(file, func(t *testing.T) {
			var want struct {
				Events []expected `json:"uefi_event_logs"`
			}
			if err := json.Unmarshal(evidencetest.Fixture(t, "eventlog/"+reading), &want); err != nil {
				t.Fatal(err)
			}
			events, _, err := measure.CCEL(recordedLog(t, file))
			if err != nil {
				t.Fatal(err)
			}
			list, err := verify.Log(recordedLog(t, file))
			if err != nil || len(list) != len(want.Events) {
				t.Fatalf("%d entries, want %d: %v", len(list), len(want.Events), err)
			}
			for i, w := range want.Events {
				got := list[i]
				if got.Register != w.Index || got.Type != w.Type || !strings.HasSuffix(got.Digest, w.Digests[0].Digest) || !bytes.Equal(events[i].Data, w.Event) {
					t.Errorf("event %d: got %+v, want %+v", i, got, w)
				}
				if got.Covered && !w.Matches {
					t.Errorf("event %d: the digest is not of the data: %+v", i, got)
				}
				if name := w.Details.Unicode; name != "" && name != "AAEL" && got.Text != name {
					t.Errorf("event %d: named %q, want %q", i, got.Text, name)
				}
				if d := w.Details.Data; d.Domain != got.Domain || d.Operation != got.Operation || !sameContent(d.Content, got.Content) {
					t.Errorf("event %d: got %+v, want %+v", i, got, d)
				}
			}
		})
	}
}

// sameContent allows for Trustee's parsing content that is JSON.
func sameContent(want json.RawMessage, got string) bool {
	var text string
	if want == nil || json.Unmarshal(want, &text) == nil {
		return text == got
	}
	var a, b any
	return json.Unmarshal(want, &a) == nil && json.Unmarshal([]byte(got), &b) == nil && reflect.DeepEqual(a, b)
}

func FuzzLog(f *testing.F) {
	for file := range readings {
		f.Add(recordedLog(f, file)[:4096])
	}
	f.Add(recordedLog(f, "CCEL_AAEL_alibabacloud.gz"))
	f.Fuzz(func(t *testing.T, log []byte) {
		list, err := verify.Log(log)
		if err != nil {
			return
		}
		for _, l := range list {
			if l.Type == "" || len(l.Text) > 256+256+64<<10+2 || l.Domain != "" && strings.ContainsAny(l.Domain+l.Operation, " \n") {
				t.Errorf("read %+v", l)
			}
		}
	})
}
