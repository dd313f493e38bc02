package measure

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
)

// hardware has four registers that can only be extended, and may fail as told.
type hardware struct {
	mu       sync.Mutex
	rtmr     [4][]byte
	extended int
	fail     error // of the next extension
	late     bool  // and it is made all the same
}

func newHardware() *hardware {
	h := &hardware{}
	for i := range h.rtmr {
		h.rtmr[i] = make([]byte, 48)
	}
	return h
}

func (h *hardware) RTMR(index int) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.rtmr[index]), nil
}

func (h *hardware) Extend(index int, digest []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.fail
	h.fail = nil
	if err == nil || h.late {
		sum := sha512.Sum384(append(h.rtmr[index], digest...))
		h.rtmr[index] = sum[:]
		h.extended++
	}
	return err
}

// replay computes the registers from the bytes of a log, by another way than
// the one they were written by.
func replay(t *testing.T, log []byte) [4][]byte {
	t.Helper()
	h := newHardware()
	for len(log) > 0 {
		if len(log) < 66 || !bytes.Equal(log[4:14], []byte{6, 0, 0, 0, 1, 0, 0, 0, 0x0c, 0}) {
			t.Fatalf("event is % x", log[:min(14, len(log))])
		}
		if err := h.Extend(int(log[0])-1, log[14:62]); err != nil {
			t.Fatal(err)
		}
		log = log[66+int(log[62])+int(log[63])<<8:]
	}
	return h.rtmr
}

// agree checks that the log replays to the registers.
func agree(t *testing.T, l *Log, h *hardware, entries int) {
	t.Helper()
	err := l.View(func(log []byte) error {
		got := replay(t, log)
		for i := range got {
			if !bytes.Equal(got[i], h.rtmr[i]) {
				t.Errorf("register %d is %x, the log replays to %x", i, h.rtmr[i], got[i])
			}
		}
		if n := bytes.Count(log, []byte("LEAA")); n != entries {
			t.Errorf("%d entries, want %d", n, entries)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func open(t *testing.T, dir string, h *hardware) *Log {
	t.Helper()
	l, err := OpenLog(dir, TDX(h))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

var entry = Entry{"domain", "operation", "content"}

// The bytes and digests are those of the reference guest for the same entry.
func TestEntryVectors(t *testing.T) {
	const (
		tagged = "4c45414118000000646f6d61696e206f7065726174696f6e20636f6e74656e74"
		digest = "dad5f0e226318ffa9839b75a472c6aa7fdb5834949d0a0a22990cf04d5692440fb00f3aa0609db7e49cd8d793f670d02"
		rtmr3  = "82d3f7a4203f58dafe0519eb5e9f645339cda127418c62d4b0270d790ab6ff3c38783523613a7a9f610e7ba004788c26"
	)
	if got := hex.EncodeToString(entry.tagged()); got != tagged {
		t.Errorf("tagged = %s", got)
	}
	h := newHardware()
	l := open(t, t.TempDir(), h)
	if err := l.Append(entry, 17); err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(h.rtmr[3]); got != rtmr3 {
		t.Errorf("register 3 = %s", got)
	}
	err := l.View(func(log []byte) error {
		want := "04000000" + "06000000" + "01000000" + "0c00" + digest + "20000000" + tagged
		if got := hex.EncodeToString(log); got != want {
			t.Errorf("log = %s, want %s", got, want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRegistersOfPCRs(t *testing.T) {
	bank := TDX(newHardware())
	for pcr, want := range map[uint32]int{0: 3, 1: 0, 2: 1, 6: 1, 7: 0, 8: 2, 15: 2, 16: 3, 17: 3, 23: 3, 1 << 31: 3} {
		if got := bank.Index(pcr); got != want {
			t.Errorf("PCR %d is register %d, want %d", pcr, got, want)
		}
	}
}

func TestAppend(t *testing.T) {
	h := newHardware()
	dir := t.TempDir()
	l := open(t, dir, h)
	var wait sync.WaitGroup
	for i := range 40 {
		wait.Go(func() {
			e := Entry{"d", "o", strings.Repeat("x", i*20)}
			if err := l.Append(e, uint32(8+i%12)); err != nil {
				t.Error(err)
			}
			agreeSoon(t, l)
		})
	}
	wait.Wait()
	agree(t, l, h, 40)
	again := open(t, dir, h)
	if err := again.Append(entry, 17); err != nil {
		t.Fatal(err)
	}
	agree(t, again, h, 41)
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("left %v, %v", files, err)
	}
}

// agreeSoon looks while others append: inside a view nothing is half done.
func agreeSoon(t *testing.T, l *Log) {
	err := l.View(func(log []byte) error {
		now := l.bank.Registers.(*hardware)
		if got := replay(t, log); !bytes.Equal(got[3], now.rtmr[3]) {
			t.Error("a view sees a register without its entry")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestEntryRefused(t *testing.T) {
	h := newHardware()
	l := open(t, t.TempDir(), h)
	for name, e := range map[string]Entry{
		"space in domain":    {"a b", "o", "c"},
		"no domain":          {"", "o", "c"},
		"no operation":       {"d", "", "c"},
		"break in operation": {"d", "o\n", "c"},
		"break in content":   {"d", "o", "c\nd p x"},
		"zero in content":    {"d", "o", "\x00"},
		"long domain":        {strings.Repeat("d", maxName+1), "o", "c"},
		"long content":       {"d", "o", strings.Repeat("c", maxContent+1)},
	} {
		if err := l.Append(e, 17); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if h.extended != 0 {
		t.Errorf("%d extensions", h.extended)
	}
	if err := l.Append(Entry{"d", "o", ""}, 17); err != nil {
		t.Errorf("empty content: %v", err)
	}
}

func TestExtendFails(t *testing.T) {
	h := newHardware()
	dir := t.TempDir()
	l := open(t, dir, h)
	h.fail = errors.New("the device is busy")
	if err := l.Append(entry, 17); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("Append: %v", err)
	}
	agree(t, l, h, 0)
	if err := l.Append(entry, 17); err != nil {
		t.Errorf("after a failure: %v", err)
	}
	agree(t, l, h, 1)

	// The platform reports a failure of what it did.
	h.fail, h.late = errors.New("too late"), true
	if err := l.Append(entry, 17); err == nil {
		t.Error("Append succeeds")
	}
	if err := l.Append(entry, 17); err == nil || !strings.Contains(err.Error(), "ended earlier") {
		t.Errorf("a log that does not agree goes on: %v", err)
	}
	if err := l.View(func([]byte) error { return nil }); err == nil {
		t.Error("a log that does not agree is shown")
	}
	agree(t, open(t, dir, h), h, 2)
}

// A process may die behind each step; the next one must make the two agree.
func TestDeathBehindEachStep(t *testing.T) {
	for name, steps := range map[string]func(l *Log, h *hardware, p planned) error{
		"written ahead": func(l *Log, _ *hardware, p planned) error { return l.writeAhead(p) },
		"extended": func(l *Log, h *hardware, p planned) error {
			return errors.Join(l.writeAhead(p), h.Extend(p.index, p.digest))
		},
		"half recorded": func(l *Log, h *hardware, p planned) error {
			f, err := os.OpenFile(l.path(logName), os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt(p.event[:10], p.offset)
			return errors.Join(err, l.writeAhead(p), h.Extend(p.index, p.digest))
		},
		"recorded": func(l *Log, h *hardware, p planned) error {
			return errors.Join(l.finish(p), l.writeAhead(p), h.Extend(p.index, p.digest))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHardware()
			dir := t.TempDir()
			l := open(t, dir, h)
			if err := l.Append(entry, 17); err != nil {
				t.Fatal(err)
			}
			p, err := l.plan(Entry{"d", "o", "second"}, 3)
			if err != nil {
				t.Fatal(err)
			}
			if err := steps(l, h, p); err != nil && name != "recorded" { // finish has no file to remove yet
				t.Fatal(err)
			}
			after := open(t, dir, h)
			agree(t, after, h, 2)
			if h.extended != 2 {
				t.Errorf("%d extensions, want 2", h.extended)
			}
		})
	}
}

func TestStrangerExtends(t *testing.T) {
	h := newHardware()
	dir := t.TempDir()
	l := open(t, dir, h)
	p, err := l.plan(entry, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.writeAhead(p); err != nil {
		t.Fatal(err)
	}
	if err := h.Extend(3, make([]byte, 48)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLog(dir, TDX(h)); !errdefs.IsDataLoss(err) {
		t.Errorf("OpenLog: %v, want data loss", err)
	}
}

func TestLogIsBounded(t *testing.T) {
	h := newHardware()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, logName), make([]byte, MaxLog-10), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(t, dir, h).Append(entry, 17); !errdefs.IsResourceExhausted(err) || h.extended != 0 {
		t.Errorf("Append: %v after %d extensions", err, h.extended)
	}
}

func FuzzAhead(f *testing.F) {
	h := newHardware()
	dir := f.TempDir()
	l, err := OpenLog(dir, TDX(h))
	if err != nil {
		f.Fatal(err)
	}
	p, err := l.plan(entry, 3)
	if err != nil {
		f.Fatal(err)
	}
	if err := l.writeAhead(p); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(l.path(aheadName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:50])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		h := newHardware()
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, aheadName), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenLog(dir, TDX(h)); err == nil && h.extended == 0 && len(text) > 0 {
			t.Error("something else than a planned entry was taken")
		}
	})
}
