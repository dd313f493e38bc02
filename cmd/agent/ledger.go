package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/agent/policy"
	"github.com/coffer-cc/coffer/agent/sandbox"
	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/measure"
)

// Domains of what is recorded: the one of the reference guest for the event that
// it records too, and our own.
const (
	domainCoCo   = "github.com/confidential-containers"
	domainCoffer = "github.com/coffer-cc/coffer"
)

// ledger records what decides over the guest after its start. Each fact goes to
// the guest's own log, and to the platform's runtime log where the owner wants
// that, before it takes effect.
//
// It also counts the changes after which a verdict over the guest is out of
// date: an extended register shows in the evidence, another policy does not but
// decides over what the host may do with a secret.
type ledger struct {
	log   *measure.Log // nil unless the owner enables it
	pcr   uint32
	epoch atomic.Uint64

	policies sync.Mutex // held from the record of a policy until it is in force
}

// recorder is a platform that keeps a runtime log.
type recorder interface {
	OpenLog(dir string) (*measure.Log, error)
}

// openLedger opens the runtime log where the configuration enables it, and
// records what the guest was started with. A platform that has no registers for
// it ends the boot: the owner counts on the record.
func (p *process) openLedger(ctx context.Context) (*ledger, error) {
	l := &ledger{pcr: p.config.Attestation.EventLog.PCR}
	if p.config.Attestation.EventLog.Enable {
		platform, ok := p.platform.(recorder)
		if !ok {
			return nil, evidence.DriverRegisters.Wrap(fmt.Errorf("eventlog_config.enable_eventlog: this platform has no runtime registers: %w", errdefs.ErrNotImplemented))
		}
		var err error
		if l.log, err = platform.OpenLog(measure.DefaultDir); err != nil {
			return nil, fmt.Errorf("eventlog_config.enable_eventlog: %w", err)
		}
		if err = l.log.Takes(l.pcr); err != nil {
			return nil, evidence.DriverRegisters.Wrap(err)
		}
	}
	if p.document != nil {
		err := l.record(ctx, "Initdata", initdataFact{p.document.Algorithm, p.bound, fmt.Sprintf("%x", p.document.Digest())})
		if err != nil {
			return nil, err
		}
	}
	if p.config.Console.Enabled {
		if err := l.record(ctx, "Debug", debugFact{"debug_console"}); err != nil {
			return nil, err
		}
	}
	if p.config.Log.Level < slog.LevelInfo {
		if err := l.record(ctx, "Debug", debugFact{"log"}); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// initdataFact says whether hardware vouches for the document.
type initdataFact struct {
	Algorithm string `json:"algorithm"`
	Bound     bool   `json:"bound"`
	Digest    string `json:"digest"`
}

type digestFact struct {
	Algorithm string `json:"algorithm"`
	Digest    string `json:"digest"`
}

type debugFact struct {
	Feature string `json:"feature"`
}

// record writes down a fact of this agent's own.
func (l *ledger) record(ctx context.Context, operation string, fact any) error {
	content, err := json.Marshal(fact)
	if err != nil {
		return fmt.Errorf("record %s: %w", operation, err)
	}
	return l.append(ctx, measure.Entry{Domain: domainCoffer, Operation: operation, Content: string(content)})
}

func (l *ledger) append(ctx context.Context, e measure.Entry) error {
	slog.InfoContext(ctx, "recorded", "domain", e.Domain, "operation", e.Operation, "content", e.Content, "measured", l.log != nil)
	if l.log == nil {
		return nil
	}
	// Afterwards, and also when it failed half-way: a verdict over evidence from
	// before the extension must not count for the epoch that it begins.
	defer l.epoch.Add(1)
	return l.log.Append(e, l.pcr)
}

// pulled records an image as the reference guest does, whose policies compare
// the text: with a space behind the comma.
func (l *ledger) pulled(ctx context.Context, f sandbox.ImageFacts) error {
	reference, err := json.Marshal(f.Image.Reference)
	if err != nil {
		return fmt.Errorf("record image: %w", err)
	}
	return l.append(ctx, measure.Entry{Domain: domainCoCo, Operation: "PullImage",
		Content: fmt.Sprintf(`{"image":%s, "digest":%q}`, reference, f.Image.ManifestDigest)})
}

// recordedPolicy records each policy before it takes effect.
type recordedPolicy struct {
	*policy.Rego
	ledger *ledger
}

// Replace leaves no trace of a text that is no policy. Of several at once the
// one that is recorded last is in force at the end.
func (p recordedPolicy) Replace(ctx context.Context, text string) error {
	if err := policy.New().Replace(ctx, text); err != nil {
		return err
	}
	p.ledger.policies.Lock()
	defer p.ledger.policies.Unlock()
	if err := p.ledger.record(ctx, "SetPolicy", digestFact{"sha256", fmt.Sprintf("%x", sha256.Sum256([]byte(text)))}); err != nil {
		return err
	}
	defer p.ledger.epoch.Add(1)
	return p.Rego.Replace(ctx, text)
}
