package format

import (
	"io"
	"sync"
)

const (
	aheadSize  = 256 << 10
	aheadCount = 4
)

// aheadBuffers saves the garbage that many small layers would make.
var aheadBuffers = sync.Pool{New: func() any { return new([aheadSize]byte) }}

// Ahead reads from a source in a goroutine, up to 1 MiB before its user, so
// that two steps of a pipeline work at the same time. Read is for one
// goroutine; Close may come from another.
type Ahead struct {
	src  io.ReadCloser
	stop func()
	full chan chunk
	free chan struct{} // a token for each buffer that may be filled
	quit chan struct{}
	done chan struct{}
	once sync.Once
	cur  chunk
	off  int
}

type chunk struct {
	buf *[aheadSize]byte
	n   int
	err error // behind the n bytes
}

// ReadAhead starts to read src and owns it: it is closed by the goroutine that
// reads it. stop, if not nil, makes a pending Read of src return; Close calls
// it before it waits for the goroutine.
func ReadAhead(src io.ReadCloser, stop func()) *Ahead {
	a := &Ahead{
		src: src, stop: stop,
		full: make(chan chunk, aheadCount),
		free: make(chan struct{}, aheadCount),
		quit: make(chan struct{}),
		done: make(chan struct{}),
	}
	for range aheadCount {
		a.free <- struct{}{}
	}
	go a.run()
	return a
}

func (a *Ahead) run() {
	defer close(a.done)
	defer a.src.Close()
	for {
		select {
		case <-a.free:
		case <-a.quit:
			return
		}
		c := chunk{buf: aheadBuffers.Get().(*[aheadSize]byte)}
		for c.n < aheadSize && c.err == nil {
			var n int
			n, c.err = a.src.Read(c.buf[c.n:])
			c.n += n
		}
		a.full <- c // never blocks: there is room for every buffer
		if c.err != nil {
			return
		}
	}
}

// Read returns what was read ahead. After Close it fails.
func (a *Ahead) Read(p []byte) (int, error) {
	for a.off == a.cur.n {
		if a.cur.err != nil {
			return 0, a.cur.err
		}
		if a.cur.buf != nil {
			aheadBuffers.Put(a.cur.buf)
			a.cur, a.off = chunk{}, 0
			a.free <- struct{}{}
		}
		select {
		case <-a.quit:
			return 0, errClosed
		default:
		}
		select {
		case a.cur = <-a.full:
			a.off = 0
		case <-a.quit:
			return 0, errClosed
		}
	}
	n := copy(p, a.cur.buf[a.off:a.cur.n])
	a.off += n
	return n, nil
}

// Close ends the goroutine and waits for it. Buffers that were read ahead are
// left to the garbage collector, since a Read may still hold one.
func (a *Ahead) Close() error {
	a.once.Do(func() { close(a.quit) })
	if a.stop != nil {
		a.stop()
	}
	<-a.done
	return nil
}
