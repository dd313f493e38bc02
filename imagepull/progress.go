package imagepull

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coffer-cc/coffer/imagepull/registry"
)

// The phases of a pull. Layers are fetched, decrypted and unpacked at the same
// time: the pull is then in PhaseFetch, and the seconds of the three are what
// all layers together spent on each.
const (
	PhaseResolve = "resolve"
	PhaseVerify  = "verify"
	PhaseKey     = "key"
	PhaseFetch   = "fetch"
	PhaseDecrypt = "decrypt"
	PhaseUnpack  = "unpack"
	PhaseDone    = "done"
	PhaseFailed  = "failed"
)

// Progress is the state of one pull.
type Progress struct {
	Reference  string
	Digest     string // of the manifest, once it is known
	Phase      string
	Bytes      int64 // of layers as the registry has them; those there already count
	Total      int64 // 0 until it is known
	LayersDone int
	Layers     int
	Seconds    map[string]float64 // by phase
	Began      time.Time
	Elapsed    time.Duration
}

// String is for messages.
func (p Progress) String() string {
	if p.Layers == 0 {
		return fmt.Sprintf("after %s in phase %s", p.Elapsed.Round(time.Millisecond), p.Phase)
	}
	return fmt.Sprintf("after %s in phase %s with %d of %d bytes, %d of %d layers",
		p.Elapsed.Round(time.Millisecond), p.Phase, p.Bytes, p.Total, p.LayersDone, p.Layers)
}

// progress is what a job writes and others read.
type progress struct {
	bytes      atomic.Int64
	layersDone atomic.Int32

	mu      sync.Mutex // guards what follows
	state   Progress
	spent   map[string]time.Duration
	entered time.Time
	ended   time.Time
}

func newProgress(reference string) *progress {
	now := time.Now()
	return &progress{entered: now, spent: map[string]time.Duration{}, state: Progress{Reference: reference, Began: now}}
}

// enter ends the current phase and begins the next. The time of PhaseFetch is
// not that between two calls; see took.
func (p *progress) enter(phase string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.state.Phase != "" && p.state.Phase != PhaseFetch {
		p.spent[p.state.Phase] += now.Sub(p.entered)
	}
	p.state.Phase, p.entered = phase, now
}

func (p *progress) took(phase string, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spent[phase] += max(d, 0)
}

func (p *progress) resolved(img *registry.Image) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Digest = img.Digest.String()
	p.state.Layers = len(img.Manifest.Layers)
	for _, l := range img.Manifest.Layers {
		p.state.Total += l.Size
	}
}

func (p *progress) end(err error) {
	phase := PhaseDone
	if err != nil {
		phase = PhaseFailed
	}
	p.enter(phase)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = time.Now()
}

func (p *progress) snapshot() Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.state
	s.Bytes, s.LayersDone = p.bytes.Load(), int(p.layersDone.Load())
	end := p.ended
	if end.IsZero() {
		end = time.Now()
	}
	s.Elapsed = end.Sub(s.Began)
	s.Seconds = map[string]float64{}
	for phase, d := range p.spent {
		s.Seconds[phase] = d.Seconds()
	}
	return s
}

// snapshots returns the states in the order in which the pulls began.
func snapshots(all []*progress) []Progress {
	out := make([]Progress, len(all))
	for i, p := range all {
		out[i] = p.snapshot()
	}
	slices.SortStableFunc(out, func(a, b Progress) int { return a.Began.Compare(b.Began) })
	return out
}

// log writes the one line about a pull that worked.
func (p *progress) log(ctx context.Context, img *pulled) {
	s := p.snapshot()
	attrs := []any{"reference", s.Reference, "digest", img.digest, "layers", s.Layers, "bytes", s.Total, "seconds", s.Elapsed.Seconds()}
	for _, phase := range []string{PhaseResolve, PhaseVerify, PhaseKey, PhaseFetch, PhaseDecrypt, PhaseUnpack} {
		attrs = append(attrs, phase+"_seconds", s.Seconds[phase])
	}
	slog.InfoContext(ctx, "image pulled", attrs...)
}

// stopwatch measures the time spent in Read, and counts bytes.
type stopwatch struct {
	r     io.Reader
	bytes *atomic.Int64 // may be nil
	spent time.Duration
	count int64
}

func (s *stopwatch) Read(p []byte) (int, error) {
	began := time.Now()
	n, err := s.r.Read(p)
	s.spent += time.Since(began)
	s.count += int64(n)
	if s.bytes != nil {
		s.bytes.Add(int64(n))
	}
	return n, err
}
