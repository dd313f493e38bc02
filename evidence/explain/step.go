package explain

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/kbs"
)

// Status of a leg.
type Status string

// Skipped legs lie behind one with a fault.
const (
	OK      Status = "ok"
	Warning Status = "warning"
	Faulty  Status = "fault"
	Skipped Status = "skipped"
)

// Step is one leg that was walked.
type Step struct {
	Leg    evidence.Leg
	Status Status
	Took   time.Duration
	Code   evidence.Code // of a fault or a warning, where there is one
	Text   string        // what was seen
	Err    error         // of a fault
}

// walk gathers steps.
type walk struct {
	steps []Step
	seen  atomic.Pointer[evidence.Evidence] // what a broker has been answered, nil otherwise
}

// leg takes the time of do and reports whether there was no fault.
func (w *walk) leg(leg evidence.Leg, do func() (string, error)) bool {
	start := time.Now()
	text, err := do()
	s := Step{Leg: leg, Status: OK, Took: time.Since(start), Text: text}
	if err != nil {
		s.fail(err)
	}
	w.steps = append(w.steps, s)
	return err == nil
}

func (s *Step) fail(err error) {
	s.Status, s.Err, s.Code, s.Text = Faulty, err, evidence.CodeOf(err), err.Error()
}

// settle adds two legs that one call walked. Its error's code says which of them
// has the fault, and may say that it is another one.
func (w *walk) settle(phases *phases, err error, took time.Duration, legs ...evidence.Leg) bool {
	if err == nil {
		for _, leg := range legs {
			w.steps = append(w.steps, Step{Leg: leg, Status: OK, Took: phases.share(leg)})
		}
		return true
	}
	at := evidence.CodeOf(err).Leg()
	for _, leg := range legs[:max(0, slices.Index(legs, at))] {
		w.steps = append(w.steps, Step{Leg: leg, Status: OK, Took: phases.share(leg)})
	}
	if at == "" {
		at = legs[0]
	}
	s := Step{Leg: at, Took: took}
	s.fail(err)
	w.steps = append(w.steps, s)
	return false
}

// phases are what a broker's client observes, which may go on when the walk is
// over.
type phases struct {
	mu   sync.Mutex // guards took
	took map[string]time.Duration
}

func (p *phases) observe(phase string, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took[phase] += d
}

// share is the part of a leg in them. Collecting the evidence again is in none.
func (p *phases) share(leg evidence.Leg) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch leg {
	case evidence.LegTransport:
		return p.took[kbs.PhaseChallenge]
	case evidence.LegVerdict:
		return p.took[kbs.PhaseVerdict]
	case evidence.LegResource:
		return p.took[kbs.PhaseKey]
	}
	return 0 // the policy is judged within the request for the resource
}

// skipRest adds the legs of the plan that were not reached.
func (w *walk) skipRest(p Plan) []Step {
	plan := []evidence.Leg{evidence.LegPlatform, evidence.LegInitdata, evidence.LegDriver, evidence.LegEndorsement}
	if p.Broker != nil {
		plan = append(plan, evidence.LegTransport, evidence.LegVerdict)
	}
	if p.Broker != nil && p.Resource != nil {
		plan = append(plan, evidence.LegPolicy, evidence.LegResource)
	}
	for _, leg := range plan {
		if !slices.ContainsFunc(w.steps, func(s Step) bool { return s.Leg == leg }) {
			w.steps = append(w.steps, Step{Leg: leg, Status: Skipped})
		}
	}
	return w.steps
}
