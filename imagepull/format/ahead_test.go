package format_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/coffer-cc/coffer/imagepull/format"
)

func TestAhead(t *testing.T) {
	for _, size := range []int{0, 1, 256<<10 - 1, 256 << 10, 256<<10 + 1, 3 << 20} {
		want := make([]byte, size)
		for i := range want {
			want[i] = byte(rand.IntN(256))
		}
		for name, shape := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "halves": iotest.HalfReader, "end with data": iotest.DataErrReader,
		} {
			a := format.ReadAhead(io.NopCloser(shape(bytes.NewReader(want))), nil)
			got, err := io.ReadAll(iotest.HalfReader(a))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %s: %d bytes, %v", size, name, len(got), err)
			}
			if n, err := a.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("behind the end: %d, %v", n, err)
			}
			a.Close()
		}
	}
}

// An error comes behind all the bytes that came before it.
func TestAheadKeepsTheError(t *testing.T) {
	broken := errors.New("broken")
	body := make([]byte, 300<<10)
	a := format.ReadAhead(io.NopCloser(io.MultiReader(bytes.NewReader(body), iotest.ErrReader(broken))), nil)
	defer a.Close()
	if got, err := io.ReadAll(a); len(got) != len(body) || !errors.Is(err, broken) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// closing counts how often it is closed.
type closing struct {
	io.Reader
	n int
}

func (c *closing) Close() error { c.n++; return nil }

func TestAheadClose(t *testing.T) {
	r, w := io.Pipe()
	src := &closing{Reader: r}
	a := format.ReadAhead(src, func() { r.Close() })
	if _, err := w.Write([]byte("some")); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := a.Read(make([]byte, 10)); err == nil {
			t.Error("read from a closed source")
		}
	})
	for range 3 { // in any order with the read, and more than once
		wg.Go(func() { a.Close() })
	}
	wg.Wait()
	if src.n != 1 {
		t.Errorf("source was closed %d times", src.n)
	}
	if _, err := a.Read(make([]byte, 10)); err == nil || err == io.EOF {
		t.Errorf("read after close: %v", err)
	}
}
