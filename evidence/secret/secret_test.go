package secret_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/coffer-cc/coffer/evidence/secret"
)

// leaks lists the shapes in which the bytes of "hunter2" could show up.
var leaks = []string{"hunter2", "68756e74657232", "68756E74657232", "aHVudGVyMg", "104 117"}

func check(t *testing.T, what, got string) {
	t.Helper()
	for _, l := range leaks {
		if strings.Contains(got, l) {
			t.Errorf("%s shows the secret: %q", what, got)
		}
	}
}

func TestBytesNeverPrint(t *testing.T) {
	b := secret.Bytes("hunter2")
	type holder struct{ Key secret.Bytes }
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%b", "%o", "%c", "%10s"} {
		check(t, verb, fmt.Sprintf(verb, b))
		check(t, verb+" in a struct", fmt.Sprintf(verb, holder{b}))
		check(t, verb+" behind a pointer", fmt.Sprintf(verb, &holder{b}))
	}
	check(t, "error", fmt.Errorf("unwrap %v: failed", b).Error())
	check(t, "Sprint", fmt.Sprint(b, []secret.Bytes{b}, map[string]secret.Bytes{"k": b}))
}

func TestBytesNeverLog(t *testing.T) {
	b := secret.Bytes("hunter2")
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "key", b, "held", struct{ K secret.Bytes }{b})
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "key", b, "held", struct{ K secret.Bytes }{b})
	check(t, "slog", out.String())
	if !strings.Contains(out.String(), "[secret]") {
		t.Errorf("log shows no placeholder: %s", out.String())
	}
}

func TestBytesNeverMarshal(t *testing.T) {
	b := secret.Bytes("hunter2")
	if out, err := json.Marshal(struct{ K secret.Bytes }{b}); err == nil {
		t.Errorf("json.Marshal = %s, want an error", out)
	}
	if _, err := b.MarshalText(); err == nil {
		t.Error("MarshalText succeeded")
	}
	var out bytes.Buffer
	if err := gob.NewEncoder(&out).Encode(b); err == nil {
		t.Error("gob encoded a secret")
	}
}

func TestWipe(t *testing.T) {
	b := secret.Bytes("hunter2")
	part, own := b[:3], b.Clone()
	b.Wipe()
	if !bytes.Equal(b, make([]byte, 7)) || !bytes.Equal(part, make([]byte, 3)) {
		t.Error("Wipe left bytes behind")
	}
	if string(own) != "hunter2" {
		t.Error("Clone shares memory with its source")
	}
}
