package format_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/coffer-cc/coffer/imagepull/format"
	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
)

// BenchmarkUnpack takes layers of few large and of many small files. A round
// includes no fetch and no removal.
func BenchmarkUnpack(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("owners need root")
	}
	words := make([]byte, 4<<20)
	source := rand.New(rand.NewPCG(1, 2))
	for i := range words {
		words[i] = "etaoin shrdlu\n"[min(source.IntN(14), source.IntN(14))]
	}
	var large, small []Entry
	for i := range 8 {
		large = append(large, File(fmt.Sprint("usr/lib/", i), string(words)))
	}
	for i := range 4000 {
		at := source.IntN(len(words) - 8000)
		small = append(small, File(fmt.Sprintf("usr/share/d%d/sub/f%d", i/40, i), string(words[at:at+source.IntN(8000)])))
	}
	for name, entries := range map[string][]Entry{"large": large, "small": small} {
		archive := Tar(b, entries...)
		for _, compression := range []string{Plain, Gzip, Zstd} {
			l := LayerOf(b, compression, archive)
			b.Run(name+"/"+compression, func(b *testing.B) {
				u := format.Unpackers(format.Limits{})[l.MediaType]
				b.SetBytes(int64(len(archive)))
				for b.Loop() {
					b.StopTimer()
					dir, err := os.MkdirTemp("/dev/shm", "unpack-") // memory, as in a guest
					if err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
					_, err = u.Unpack(b.Context(), format.Layer{R: io.NopCloser(bytes.NewReader(l.Blob)), Dir: dir, DiffID: l.DiffID})
					b.StopTimer()
					if err != nil {
						b.Fatal(err)
					}
					os.RemoveAll(dir)
					b.StartTimer()
				}
			})
		}
	}
}
