package tee

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/measure"
	"github.com/coffer-cc/coffer/evidence/tsm"
)

// tdx is Intel TDX. The processor flag shows the platform also where the
// kernel was built without its driver.
func (h host) tdx() Driver {
	return Driver{
		Kind:  evidence.TDX,
		Signs: "/dev/tdx_guest, processor flag tdx_guest, report provider tdx_guest",
		Present: func() bool {
			return h.opens("dev/tdx_guest") || h.processorFlag("tdx_guest") || h.reporter("tdx_guest")
		},
		Open: func() (evidence.Collector, error) { return &tdxGuest{host: h, turn: newTurn()}, nil },
	}
}

// tdxGuest collects quotes and the event log of the firmware.
type tdxGuest struct {
	host host
	turn turn
	log  *measure.Log // nil where nothing is recorded
}

// Kind is evidence.TDX.
func (t *tdxGuest) Kind() evidence.Kind { return evidence.TDX }

// Collect returns what Trustee reads (deps/verifier/src/tdx): the quote, and
// the event log that its runtime registers replay from.
func (t *tdxGuest) Collect(ctx context.Context, rd evidence.ReportData) (e evidence.Evidence, err error) {
	if t.log == nil {
		return t.collect(ctx, rd, nil)
	}
	err = t.log.View(func(recorded []byte) (err error) {
		e, err = t.collect(ctx, rd, recorded)
		return err
	})
	return e, err
}

func (t *tdxGuest) collect(ctx context.Context, rd evidence.ReportData, recorded []byte) (evidence.Evidence, error) {
	in := rd.Padded()
	quote, err := ask(ctx, t.turn, func() ([]byte, error) { return t.quote(ctx, in) })
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("collect tdx evidence: %w", err)
	}
	if err := checkQuote(quote, in); err != nil {
		return evidence.Evidence{}, fmt.Errorf("collect tdx evidence: %w", err)
	}
	log, err := t.host.eventLog(recorded)
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("collect tdx evidence: %w", evidence.DriverEventLog.Wrap(err))
	}
	data, err := json.Marshal(struct {
		EventLog []byte `json:"cc_eventlog"` // standard base64, or null
		Quote    []byte `json:"quote"`
	}{log, quote})
	return evidence.Evidence{Kind: evidence.TDX, Data: data}, err
}

// quote asks the kernel's report interface, else the device and the host's
// quoting service.
func (t *tdxGuest) quote(ctx context.Context, in [64]byte) ([]byte, error) {
	if t.host.reporter("tdx_guest") {
		r, err := tsm.Get(t.host.reports, tsm.Request{Provider: "tdx_guest", In: in})
		return r.Out, reportFault(err)
	}
	report, err := t.host.tdreport(in)
	if err != nil {
		return nil, err
	}
	quote, err := t.host.quoteOverVsock(ctx, report)
	return quote, evidence.EndorsementQuoting.Wrap(err)
}

// reportFault tells the host's quoting service, for which the kernel waits half
// a minute, from the interface (drivers/virt/coco/tdx-guest).
func reportFault(err error) error {
	if errors.Is(err, unix.ETIMEDOUT) {
		return evidence.EndorsementQuoting.Wrap(err)
	}
	return evidence.DriverConfigfs.Wrap(err)
}

// LaunchAnchor returns MRCONFIGID. A quote would show it too, but a quote
// comes from the host and its signature is not verified here; the report of
// the TDX module, which the kernel gets by itself, cannot be forged.
func (t *tdxGuest) LaunchAnchor(ctx context.Context) ([]byte, error) {
	id, err := measure.Files(t.host.root).MRConfigID()
	if err == nil || !errdefs.IsNotImplemented(err) {
		return id, err
	}
	report, err := ask(ctx, t.turn, func() ([]byte, error) { return t.host.tdreport([64]byte{}) })
	if err != nil {
		return nil, fmt.Errorf("read MRCONFIGID: %w", err)
	}
	return report[tdreportConfigID : tdreportConfigID+48], nil
}

// OpenLog opens the log of what happens at run time, which goes along with
// evidence from then on: it has to be called before the first Collect. There is
// no other way to extend a register, because one that was extended without an
// entry makes verifiers refuse this guest until it ends. Where the kernel does
// not offer the registers the error wraps errdefs.ErrNotImplemented.
func (t *tdxGuest) OpenLog(dir string) (*measure.Log, error) {
	registers := measure.Files(t.host.root)
	if _, err := registers.RTMR(measure.TDXRegisters - 1); err != nil {
		return nil, evidence.DriverRegisters.Wrap(err)
	}
	log, err := measure.OpenLog(dir, measure.TDX(registers))
	t.log = log
	return log, evidence.DriverEventLog.Wrap(err)
}

// ccel holds the event log that the ACPI table CCEL points to.
const ccel = "sys/firmware/acpi/tables/data/CCEL"

// eventLog returns the used part of the firmware's log, what was recorded since,
// and the mark that ends it, or nil where there is neither. The firmware's area
// itself is up to a megabyte, which would nearly fill what a key broker accepts.
func (h host) eventLog(recorded []byte) ([]byte, error) {
	log, err := h.firmwareLog()
	if err != nil || log == nil && recorded == nil {
		return nil, err
	}
	if log == nil {
		log = measure.LogHeader()
	}
	log = append(log, recorded...)
	return append(log, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), nil
}

// firmwareLog is nil where the firmware keeps none.
func (h host) firmwareLog() ([]byte, error) {
	f, err := os.Open(filepath.Join(h.root, ccel))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read event log: %w", err)
	}
	defer f.Close()
	log, err := io.ReadAll(io.LimitReader(f, measure.MaxLog+1))
	if err != nil {
		return nil, fmt.Errorf("read event log: %w", err)
	}
	_, used, err := measure.CCEL(log)
	return used[:len(used):len(used)], err
}
