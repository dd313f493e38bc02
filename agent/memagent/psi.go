package memagent

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// pressure measures how much of the time some task waited for memory or for
// disks, from one look to the next (Documentation/accounting/psi.rst).
type pressure struct {
	paths Paths

	total uint64 // microseconds
	at    time.Time
}

// percent is the pressure since the last call. The first has nothing to compare
// with and answers 0.
func (p *pressure) percent() (uint64, error) {
	var total uint64
	for _, what := range []string{"memory", "io"} {
		t, err := stalled(filepath.Join(p.paths.Proc, "pressure", what))
		if err != nil {
			return 0, err
		}
		total += t
	}
	now := time.Now()
	before, since := p.total, now.Sub(p.at)
	first := p.at.IsZero()
	p.total, p.at = total, now
	if first || total < before || since <= 0 {
		return 0, nil
	}
	return (total - before) * 100 / uint64(max(since.Microseconds(), 1)), nil
}

// stalled reads the total of the line "some avg10=… avg60=… avg300=… total=N".
func stalled(path string) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read pressure: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	_, total, ok := strings.Cut(line, " total=")
	if !ok || !strings.HasPrefix(line, "some ") {
		return 0, fmt.Errorf("read pressure: line %.80q: %w", line, os.ErrInvalid)
	}
	return strconv.ParseUint(strings.TrimSpace(total), 10, 64)
}
