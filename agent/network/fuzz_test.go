package network

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzRequests feeds the parsers of what the host sends. Whatever they accept
// must be complete, because the netlink library takes it as it is.
func FuzzRequests(f *testing.F) {
	f.Add("eth0", "10.0.0.1", "24", "02:00:00:00:00:01")
	f.Add("eth0", "fd00::1", "64", "")
	f.Add("", "::ffff:10.0.0.1", "33", "x")
	f.Add("a/b", "10.0.0.0/8", "-1", "00")
	f.Fuzz(func(t *testing.T, name, ip, mask, mac string) {
		if got, err := (Interface{Name: name, HWAddr: mac, Addresses: []Address{{ip, mask}}}).check(); err == nil {
			if a := got.addrs[0]; a.IP == nil || len(a.Mask) != len(a.IP) {
				t.Errorf("address %q/%q became %+v", ip, mask, a)
			}
		}
		if got, err := (Route{Device: name, Dest: ip, Gateway: mask, Source: ip}).parse(); err == nil && got.Dst.Mask == nil {
			t.Errorf("route to %q became %+v", ip, got)
		}
		if got, err := (Neighbor{Device: name, IP: ip, HWAddr: mac}).parse(); err == nil && got.IP == nil {
			t.Errorf("neighbour %q became %+v", ip, got)
		}
		if text, err := resolverText([]string{name, ip}); err == nil && strings.Count(text, "\n") > 1 {
			t.Errorf("lines %q and %q became %q", name, ip, text)
		}
	})
}

func TestIPv6Enabled(t *testing.T) {
	for name, tc := range map[string]struct {
		all, def string
		want     bool
	}{
		"both on": {"0", "0", true}, "one off": {"1", "0", true}, "both off": {"1", "1", false}, "no switches": {"", "", true},
	} {
		s := &Stack{proc: t.TempDir()}
		for which, value := range map[string]string{"all": tc.all, "default": tc.def} {
			dir := filepath.Join(s.proc, "sys/net/ipv6/conf", which)
			if value == "" {
				continue
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "disable_ipv6"), []byte(value+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := s.ipv6Enabled(); got != tc.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
