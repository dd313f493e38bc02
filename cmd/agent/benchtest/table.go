package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"
)

// row is one line of the table. Figures of one row have one unit.
type row struct {
	What   string  `json:"what"`
	Unit   string  `json:"unit"`
	Agent  float64 `json:"agent"`
	Peer   string  `json:"peer,omitempty"` // empty for a figure without a rival
	Peers  float64 `json:"peer_figure,omitempty"`
	Ratio  float64 `json:"ratio,omitempty"` // the agent's figure by the peer's
	Goal   string  `json:"goal,omitempty"`
	Missed bool    `json:"missed,omitempty"`
}

// goal is what a row should reach; the first that is set counts.
type goal struct {
	ratioAtMost, ratioAtLeast, atMost, atLeast float64
}

func (g goal) judge(r *row) {
	switch {
	case g.ratioAtMost > 0:
		r.Goal, r.Missed = fmt.Sprintf("≤ %.4g×", g.ratioAtMost), r.Ratio > g.ratioAtMost
	case g.ratioAtLeast > 0:
		r.Goal, r.Missed = fmt.Sprintf("≥ %.4g×", g.ratioAtLeast), r.Ratio < g.ratioAtLeast
	case g.atMost > 0:
		r.Goal, r.Missed = fmt.Sprintf("≤ %.4g", g.atMost), r.Agent > g.atMost
	case g.atLeast > 0:
		r.Goal, r.Missed = fmt.Sprintf("≥ %.4g", g.atLeast), r.Agent < g.atLeast
	}
}

// table collects rows and notes.
type table struct {
	Rows  []row    `json:"rows"`
	Notes []string `json:"notes"`
}

func (t *table) note(format string, args ...any) {
	t.Notes = append(t.Notes, fmt.Sprintf(format, args...))
}

// alone adds a figure that has no rival.
func (t *table) alone(what, unit string, figure float64, g goal) {
	r := row{What: what, Unit: unit, Agent: figure}
	g.judge(&r)
	t.Rows = append(t.Rows, r)
}

// versus adds a figure and that of a rival.
func (t *table) versus(what, unit string, figure float64, peer string, its float64, g goal) {
	r := row{What: what, Unit: unit, Agent: figure, Peer: peer, Peers: its, Ratio: figure / its}
	g.judge(&r)
	t.Rows = append(t.Rows, r)
}

func (t *table) print(w io.Writer) {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "WHAT\tUNIT\tAGENT\tPEER\tITS\tRATIO\tGOAL")
	for _, r := range t.Rows {
		its, ratio, verdict := "", "", r.Goal
		if r.Peer != "" {
			its, ratio = figure(r.Peers), fmt.Sprintf("%.2f×", r.Ratio)
		}
		if r.Missed {
			verdict += "  MISSED"
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.What, r.Unit, figure(r.Agent), r.Peer, its, ratio, verdict)
	}
	out.Flush()
	for _, n := range t.Notes {
		fmt.Fprintln(w, "-", n)
	}
}

// figure shows three digits.
func figure(f float64) string {
	switch {
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

func (t *table) save(file string) error {
	text, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// sample is a set of measured times.
type sample []time.Duration

// at returns the value below which the part p lies.
func (s sample) at(p float64) time.Duration {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}

func (s sample) mean() time.Duration {
	var sum time.Duration
	for _, d := range s {
		sum += d
	}
	return sum / time.Duration(len(s))
}

func (s sample) median() time.Duration { return s.at(0.5) }

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func us(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// middle is the median of figures.
func middle(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}
