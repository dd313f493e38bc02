package guest

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
)

// labelEscaper and helpEscaper are made on first use, since a package's init is
// paid on every start of a container.
var (
	labelEscaper = sync.OnceValue(func() *strings.Replacer {
		return strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
	})
	helpEscaper = sync.OnceValue(func() *strings.Replacer {
		return strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	})
)

// Metrics answers GetMetrics. The zero value is not useful: set Machine.
type Metrics struct {
	Machine Machine
	// Extra adds families of other packages behind the agent's and the guest's.
	Extra []func(context.Context, *Exposition)

	scrapes atomic.Uint64
}

// Page returns all families. What cannot be read is left out: half a page is
// worth more to whoever looks for a fault than an error. Files are read with a
// bound, so that a guest with very many disks or interfaces still fits into one
// answer.
func (m *Metrics) Page(ctx context.Context) string {
	e := &Exposition{}
	e.Counter("kata_agent_scrape_count", "Metrics scrape count")
	e.Sample(float64(m.scrapes.Add(1)))
	m.Machine.agentMetrics(e)
	m.Machine.guestMetrics(e)
	m.Machine.filesystemMetrics(e)
	for _, add := range m.Extra {
		add(ctx, e)
	}
	return e.String()
}
