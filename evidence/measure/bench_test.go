package measure_test

import (
	"bytes"
	"testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
	"github.com/coffer-cc/coffer/evidence/measure"
)

// BenchmarkCCEL walks over an area of a megabyte, which is the most that
// firmware reserves, full of the events of a real boot.
func BenchmarkCCEL(b *testing.B) {
	_, used, err := measure.CCEL(evidencetest.Fixture(b, "eventlog/ccel_data.dat.gz"))
	if err != nil {
		b.Fatal(err)
	}
	head := 32 + int(used[28]) + int(used[29])<<8
	const size = 1 << 20
	area := append(bytes.Clone(used), bytes.Repeat(used[head:], (size-8-len(used))/len(used[head:]))...)
	area = append(area, bytes.Repeat([]byte{0xff}, size-len(area))...)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := measure.CCEL(area); err != nil {
			b.Fatal(err)
		}
	}
}
