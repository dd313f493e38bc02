package main

import "testing"

// TestHeedMemory leads the judgement through a life: start, rest, a stream, rest.
func TestHeedMemory(t *testing.T) {
	const mb = 1 << 20
	var h heed
	total := uint64(0)
	for i, c := range []struct {
		allocated uint64
		want      verdict
	}{
		{5 * mb, usual}, {mb / 2, over}, {mb / 2, usual}, {0, usual},
		{100 * mb, busy}, {30 * mb, usual}, {90 * mb, busy}, {mb / 10, over}, {mb / 10, usual},
		// Little by little is worth it some time, too.
		{mb - 1, usual}, {mb - 1, over}, {mb - 1, usual},
	} {
		total += c.allocated
		if got := h.judge(total); got != c.want {
			t.Errorf("step %d: %d, want %d", i, got, c.want)
		}
	}
}

func TestAllocatedGrows(t *testing.T) {
	before := allocated()
	sink = make([]byte, 8<<20)
	if got := allocated() - before; got < 8<<20 {
		t.Errorf("8 MiB more are counted as %d bytes", got)
	}
}

var sink []byte
