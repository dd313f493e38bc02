package device

import "testing"

func TestNewModalias(t *testing.T) {
	for _, tc := range []struct{ msg, want string }{
		{"add@/devices/pci\x00ACTION=add\x00SUBSYSTEM=virtio\x00MODALIAS=virtio:d00000008v00001AF4\x00", "virtio:d00000008v00001AF4"},
		{"remove@/devices/pci\x00ACTION=remove\x00MODALIAS=virtio:d00000008v00001AF4\x00", ""},
		{"add@/devices/pci\x00ACTION=add\x00SUBSYSTEM=block\x00", ""},
		{"", ""},
	} {
		if got := newModalias([]byte(tc.msg)); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.msg, got, tc.want)
		}
	}
}
