package tee

import "github.com/coffer-cc/coffer/evidence"

// tdx is Intel TDX. The processor flag shows the platform also where the
// kernel was built without its driver.
func (h host) tdx() Driver {
	return Driver{
		Kind:  evidence.TDX,
		Signs: "/dev/tdx_guest, processor flag tdx_guest, report provider tdx_guest",
		Present: func() bool {
			return h.exists("dev/tdx_guest") || h.processorFlag("tdx_guest") || h.reporter("tdx_guest")
		},
		Open: func() (evidence.Collector, error) { return pending(evidence.TDX), nil },
	}
}
