package resource_test

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/resource"
)

func TestParse(t *testing.T) {
	long := strings.Repeat("a", 255)
	tests := []struct {
		name, in string
		want     string // "" when the name is to be refused
	}{
		{"plain", "kbs:///default/key/1", "default/key/1"},
		{"host is dropped", "kbs://kbs.example:8080/default/key/1", "default/key/1"},
		{"address is dropped", "kbs://[::1]:8080/default/key/1", "default/key/1"},
		{"all characters", "kbs:///A_z-9/a.b-c_d/v1.0", "A_z-9/a.b-c_d/v1.0"},
		{"longest part", "kbs:///" + long + "/t/g", long + "/t/g"},
		{"part too long", "kbs:///" + long + "a/t/g", ""},
		{"host too long", "kbs://" + long + "a/r/t/g", ""},
		{"empty", "", ""},
		{"other scheme", "https:///r/t/g", ""},
		{"plugin scheme", "kbs+pkcs11:///r/t/g", ""},
		{"upper case scheme", "KBS:///r/t/g", ""},
		{"no path", "kbs://host", ""},
		{"two parts", "kbs:///r/t", ""},
		{"four parts", "kbs:///r/t/g/x", ""},
		{"empty part", "kbs:///r//g", ""},
		{"trailing slash", "kbs:///r/t/", ""},
		{"dot in front", "kbs:///r/t/.g", ""},
		{"dot dot", "kbs:///r/../g", ""},
		{"query", "kbs:///r/t/g?x=1", ""},
		{"percent", "kbs:///r/t/%2e%2e", ""},
		{"new line", "kbs:///r/t/g\n", ""},
		{"nul", "kbs:///r/t/g\x00", ""},
		{"not ascii", "kbs:///r/t/ä", ""},
		{"user in host", "kbs://u@h/r/t/g", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u, err := resource.Parse(tt.in)
			if tt.want == "" {
				if !errdefs.IsInvalidArgument(err) {
					t.Fatalf("Parse = %v, %v, want invalid argument", u, err)
				}
				return
			}
			if err != nil || u.Path() != tt.want || u.String() != "kbs:///"+tt.want {
				t.Fatalf("Parse = %q, %v, want %q", u, err, tt.want)
			}
		})
	}
}

func TestCheckHandmade(t *testing.T) {
	if err := (resource.URI{}).Check(); !errdefs.IsInvalidArgument(err) {
		t.Errorf("zero URI passes Check: %v", err)
	}
	if err := (resource.URI{Repository: "r", Type: "..", Tag: "g"}).Check(); err == nil {
		t.Error("dot dot passes Check")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"kbs:///default/key/1", "kbs://h:1/a/b/c", "kbs:///../../x", "kbs://", "kbs:///a/b/c/d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := resource.Parse(s)
		if err != nil {
			return
		}
		again, err := resource.Parse(u.String())
		if err != nil || again != u {
			t.Fatalf("Parse(%q) = %v, which reads back as %v, %v", s, u, again, err)
		}
		if strings.Contains(u.Path(), "..") && strings.Contains("/"+u.Path()+"/", "/../") {
			t.Fatalf("Parse(%q) lets .. through", s)
		}
	})
}
