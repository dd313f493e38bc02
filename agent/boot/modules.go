package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ModulesFile is where an image lists its kernel modules, one on a line in the
// order to load them:
//
//	/lib/modules/6.12/kernel/fs/overlayfs/overlay.ko
//	/lib/modules/6.12/kernel/drivers/net/virtio_net.ko on virtio:d00000001v*
//
// The first is loaded at boot. The second is loaded when the guest has a device
// whose modalias (modules.alias(5)) is like one of the patterns, at boot or when
// it is plugged in: each module costs its time, and a host can reach the code of
// a driver only with the device. A module that another needs stands before it and
// has its patterns too.
const ModulesFile = "/etc/coffer/modules"

// Modules are those of the image; there is no modprobe in it. Set the fields
// before first use. Methods may be called from several goroutines.
type Modules struct {
	Root string // "/" outside of tests
	File string // the list below Root; it may be missing

	init func(path string) error // finit_module(2) when nil

	mu     sync.Mutex // guards what follows, also while a module is loaded
	read   bool
	listed []listedModule // not loaded yet
}

type listedModule struct {
	path string
	on   []string // patterns of devices; empty is always
}

// LoadPresent loads what is wanted at boot and for devices that are there. A
// device that is plugged in later is for Plugged.
func (m *Modules) LoadPresent(ctx context.Context) error {
	aliases, err := m.present()
	if err != nil {
		return fmt.Errorf("look for devices: %w", err)
	}
	return m.load(ctx, func(l listedModule) bool { return len(l.on) == 0 || l.matches(aliases...) })
}

// Plugged loads the modules for a device by its modalias. One that fails leaves
// the device without a driver, and whoever waits for it finds out.
func (m *Modules) Plugged(ctx context.Context, modalias string) {
	if err := m.load(ctx, func(l listedModule) bool { return l.matches(modalias) }); err != nil {
		slog.WarnContext(ctx, "no driver for a device", "modalias", modalias, "error", err)
	}
}

func (l listedModule) matches(aliases ...string) bool {
	for _, pattern := range l.on {
		for _, alias := range aliases {
			// Their patterns are fnmatch(3)'s, which Match speaks but for
			// slashes, and no alias has one.
			if ok, err := path.Match(pattern, alias); ok && err == nil {
				return true
			}
		}
	}
	return false
}

// present lists the modaliases of all devices, and the processor's.
func (m *Modules) present() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(m.Root, "sys/bus/*/devices/*/modalias"))
	if err != nil {
		return nil, err
	}
	files = append(files, filepath.Join(m.Root, "sys/devices/system/cpu/modalias"))
	var aliases []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // unplugged meanwhile, or an architecture without
		}
		aliases = append(aliases, strings.TrimSpace(string(text)))
	}
	return aliases, nil
}

// load loads the wanted ones of the list, in its order. A module that is there
// already is fine, and so is one whose hardware this guest does not have.
func (m *Modules) load(ctx context.Context, want func(listedModule) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.readLocked(); err != nil {
		return err
	}
	var rest []listedModule
	defer func() { m.listed = rest }()
	for i, l := range m.listed {
		if !want(l) {
			rest = append(rest, l)
			continue
		}
		start := time.Now()
		err := m.initModule(l.path)
		switch {
		case err == nil, errors.Is(err, unix.EEXIST):
			slog.DebugContext(ctx, "module loaded", "path", l.path, "took", time.Since(start))
		case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EOPNOTSUPP):
			slog.DebugContext(ctx, "module finds no hardware", "path", l.path)
		default:
			rest = append(rest, m.listed[i:]...)
			return fmt.Errorf("load %s: %w", l.path, err)
		}
	}
	return nil
}

// readLocked reads the list once.
func (m *Modules) readLocked() error {
	if m.read {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(m.Root, m.File))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read list of modules: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		l := listedModule{path: words[0]}
		if len(words) > 2 && words[1] == "on" {
			l.on = words[2:]
		} else if len(words) > 1 {
			return fmt.Errorf("list of modules: line %.80q", line)
		}
		m.listed = append(m.listed, l)
	}
	m.read = true
	return nil
}

func (m *Modules) initModule(path string) error {
	if m.init != nil {
		return m.init(path)
	}
	f, err := os.Open(filepath.Join(m.Root, path))
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(path, ".ko") { // .ko.xz and its kind
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	return unix.FinitModule(int(f.Fd()), "", flags)
}
