package guest

import (
	"bytes"
	"strconv"
	"strings"
)

// Exposition is a page of metrics in Prometheus' text format 0.0.4. Samples
// belong to the family begun last; a family without samples leaves no trace.
// It is not safe for concurrent use.
type Exposition struct {
	buf    bytes.Buffer
	header string
	name   string
}

// Gauge begins a family of values that go up and down.
func (e *Exposition) Gauge(name, help string) { e.family(name, help, "gauge") }

// Counter begins a family of values that only go up.
func (e *Exposition) Counter(name, help string) { e.family(name, help, "counter") }

func (e *Exposition) family(name, help, kind string) {
	e.name = name
	e.header = "# HELP " + name + " " + helpEscaper().Replace(help) + "\n# TYPE " + name + " " + kind + "\n"
}

// Sample adds a value. labels are pairs of name and value; values may hold
// anything, since many come from the host or from a container.
func (e *Exposition) Sample(value float64, labels ...string) {
	e.buf.WriteString(e.header)
	e.header = ""
	e.buf.WriteString(e.name)
	for i := 0; i+1 < len(labels); i += 2 {
		sep := byte(',')
		if i == 0 {
			sep = '{'
		}
		e.buf.WriteByte(sep)
		e.buf.WriteString(labels[i] + `="` + labelEscaper().Replace(strings.ToValidUTF8(labels[i+1], "\uFFFD")) + `"`)
	}
	if len(labels) > 1 {
		e.buf.WriteByte('}')
	}
	e.buf.WriteByte(' ')
	e.buf.WriteString(strconv.FormatFloat(value, 'g', -1, 64))
	e.buf.WriteByte('\n')
}

// String returns the page.
func (e *Exposition) String() string { return e.buf.String() }
