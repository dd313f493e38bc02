package device

import "testing"

// BenchmarkWait is what finding a device adds to the time that the device takes
// to appear, beside seven others.
func BenchmarkWait(b *testing.B) {
	others := []string{diskBridge, diskPXB, diskArm, diskMMIO, diskLoop, netDirect, netVFIO}
	b.Run("there", func(b *testing.B) {
		f := &Finder{Sys: sysfs(b, append(others, diskDirect)...)}
		m := blk(b, "0b")
		for b.Loop() {
			if _, err := f.Wait(b.Context(), m); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("plugged", func(b *testing.B) {
		f := &Finder{Sys: sysfs(b, others...)}
		m := blk(b, "0b")
		for b.Loop() {
			path := waiting(b, f, m)
			f.deliver(Event{"block", diskDirect, "vda"})
			if got := <-path; got != "/dev/vda" {
				b.Fatal(got)
			}
		}
	})
}
