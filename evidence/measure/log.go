package measure

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"
)

// DefaultDir is where the reference guest keeps its log, below /run, so it dies
// with the guest.
const DefaultDir = "/run/attestation-agent"

const (
	logName   = "eventlog"
	aheadName = ".wal_event_entry"
)

// Log records entries together with the registers they are extended into. The
// two must agree, or a verifier that replays the log refuses the guest until
// it ends; so an entry is written ahead:
//
//  1. the entry and the value that its register will have ▸ a file beside the log
//  2. its digest ▸ the register
//  3. the entry ▸ the log
//  4. the file is removed
//
// OpenLog finishes what a process that died in between has begun. A Log is safe
// for concurrent use, but it must be the only one of its directory and registers.
type Log struct {
	dir  string
	bank Bank

	mu     sync.RWMutex // guards the files and the registers; readers see them agree
	broken error        // why nothing more can be recorded
}

// OpenLog makes the directory if needed and finishes an entry that was begun.
// When the register has neither the value before nor the one after that entry,
// somebody else has extended it: that wraps errdefs.ErrDataLoss.
func OpenLog(dir string, b Bank) (*Log, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	l := &Log{dir: dir, bank: b}
	if err := l.recover(); err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	return l, nil
}

// Append extends the register that the PCR maps to and records the entry. When
// it fails before the register was extended nothing has happened. When it fails
// afterwards the log records nothing more, and the next OpenLog finishes the
// entry.
func (l *Log) Append(e Entry, pcr uint32) error {
	if err := errors.Join(e.Check(), l.Takes(pcr)); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return fmt.Errorf("record event: the log ended earlier: %w", l.broken)
	}
	p, err := l.plan(e, l.bank.Index(pcr))
	if err != nil {
		return fmt.Errorf("record event: %w", err)
	}
	if err := l.writeAhead(p); err != nil {
		return fmt.Errorf("record event: %w", err)
	}
	if err := l.bank.Registers.Extend(p.index, p.digest); err != nil {
		return fmt.Errorf("record event: %w", l.undo(p, err))
	}
	if err := l.finish(p); err != nil {
		l.broken = err
		return fmt.Errorf("record event: %w", err)
	}
	return nil
}

// Takes says why the register that the PCR maps to cannot hold a record, which
// wraps errdefs.ErrInvalidArgument; nil where it can.
func (l *Log) Takes(pcr uint32) error {
	if l.bank.Takes == nil {
		return nil
	}
	return l.bank.Takes(l.bank.Index(pcr))
}

// View calls f with the log, while no entry is half recorded: evidence that is
// collected inside agrees with it.
func (l *Log) View(f func(log []byte) error) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.broken != nil {
		return fmt.Errorf("event log: an entry is half recorded: %w", l.broken)
	}
	log, err := os.ReadFile(l.path(logName))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read event log: %w", err)
	}
	return f(log)
}

// planned is an entry on its way.
type planned struct {
	index          int
	offset         int64 // of the log where it goes
	digest, expect []byte
	event          []byte
}

func (l *Log) plan(e Entry, index int) (planned, error) {
	p := planned{index: index}
	p.event, p.digest = e.encode(l.bank, uint32(index+l.bank.Shift))
	now, err := l.bank.Registers.RTMR(index)
	if err != nil {
		return p, err
	}
	p.expect = l.bank.hash(now, p.digest)
	st, err := os.Stat(l.path(logName))
	switch {
	case err == nil:
		p.offset = st.Size()
	case !errors.Is(err, os.ErrNotExist):
		return p, err
	}
	if p.offset+int64(len(p.event)) > MaxLog {
		return p, fmt.Errorf("event log would exceed %d bytes: %w", MaxLog, errdefs.ErrResourceExhausted)
	}
	return p, nil
}

// undo tells a failed extension from one that the platform made nevertheless.
func (l *Log) undo(p planned, cause error) error {
	now, err := l.bank.Registers.RTMR(p.index)
	if err != nil || bytes.Equal(now, p.expect) {
		l.broken = cause
		return errors.Join(cause, err)
	}
	return errors.Join(cause, os.Remove(l.path(aheadName)))
}

// finish records an entry whose register is extended.
func (l *Log) finish(p planned) error {
	f, err := os.OpenFile(l.path(logName), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(p.event, p.offset)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Remove(l.path(aheadName))
}

// recover finishes the entry that a process which died has written ahead.
func (l *Log) recover() error {
	p, err := l.readAhead()
	if err != nil || p == nil {
		return err
	}
	now, err := l.bank.Registers.RTMR(p.index)
	if err != nil {
		return err
	}
	if !bytes.Equal(now, p.expect) {
		if !bytes.Equal(l.bank.hash(now, p.digest), p.expect) {
			return fmt.Errorf("register %d was extended by somebody else: %w", p.index, errdefs.ErrDataLoss)
		}
		if err := l.bank.Registers.Extend(p.index, p.digest); err != nil {
			return err
		}
	}
	return l.finish(*p)
}

// writeAhead leaves the file complete or not at all: it appears by a rename.
func (l *Log) writeAhead(p planned) error {
	b := binary.BigEndian.AppendUint64(nil, uint64(p.offset))
	b = binary.BigEndian.AppendUint32(b, uint32(p.index))
	b = append(append(append(b, p.expect...), p.digest...), p.event...)
	temp := l.path(aheadName + ".new")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(temp, l.path(aheadName))
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}

// readAhead returns nil when nothing was begun.
func (l *Log) readAhead() (*planned, error) {
	f, err := os.Open(l.path(aheadName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxContent+4<<10))
	if err != nil {
		return nil, err
	}
	size := l.bank.Hash.Size()
	if len(b) < 12+2*size {
		return nil, fmt.Errorf("%s is cut: %w", aheadName, errdefs.ErrDataLoss)
	}
	p := &planned{offset: int64(binary.BigEndian.Uint64(b)), index: int(binary.BigEndian.Uint32(b[8:]))}
	b = b[12:]
	p.expect, p.digest, p.event = b[:size], b[size:2*size], b[2*size:]
	if p.offset < 0 || p.offset > MaxLog || p.index < 0 || p.index >= l.bank.Count {
		return nil, fmt.Errorf("%s names offset %d and register %d: %w", aheadName, p.offset, p.index, errdefs.ErrDataLoss)
	}
	return p, nil
}

func (l *Log) path(name string) string { return filepath.Join(l.dir, name) }
