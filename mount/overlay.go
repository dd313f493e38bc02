package mount

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// maxLayers is the kernel's own limit (OVL_MAX_STACK in fs/overlayfs/super.c).
const maxLayers = 500

// Overlay describes an overlay file system.
type Overlay struct {
	Lower       []string // topmost first, at least one
	Upper, Work string   // both or none; none makes it read-only
	Options     Options  // Data holds overlayfs options such as "index=off"
}

// Mount mounts the overlay on target, which is resolved as the kernel does it.
func (o Overlay) Mount(target string) error {
	return o.on(target, func() (string, func(), error) { return target, func() {}, nil })
}

// MountOverlay mounts the overlay on the place, which must exist.
func (p Place) MountOverlay(o Overlay) error {
	return o.on(p.String(), func() (string, func(), error) {
		f, err := p.Open()
		if err != nil {
			return "", nil, err
		}
		return FDPath(f), func() { f.Close() }, nil
	})
}

func (o Overlay) on(target string, open func() (string, func(), error)) error {
	if err := o.check(target); err != nil {
		return err
	}
	release, err := o.aliases()
	if err != nil {
		return fmt.Errorf("mount overlay on %q: %w", target, err)
	}
	defer release()
	path, done, err := open()
	if err != nil {
		return err
	}
	err = o.attach(path, target)
	done()
	if errors.Is(err, errNoLayerOption) {
		return o.classic(target, open)
	}
	if err != nil || o.Options.Propagation == 0 {
		return err
	}
	path, done, err = open()
	if err != nil {
		return err
	}
	defer done()
	if err := unix.Mount("", path, "", o.Options.Propagation, ""); err != nil {
		return &Error{Op: "set propagation of", Target: target, Flags: o.Options.Propagation, Err: err}
	}
	return nil
}

func (o Overlay) check(target string) error {
	why := ""
	switch {
	case len(o.Lower) == 0:
		why = "no lower directory"
	case len(o.Lower) > maxLayers:
		why = fmt.Sprintf("%d layers are more than %d", len(o.Lower), maxLayers)
	case (o.Upper == "") != (o.Work == ""):
		why = "upper and work directory go together"
	}
	if why == "" {
		return nil
	}
	return fmt.Errorf("mount overlay on %q: %s: %w", target, why, errdefs.ErrInvalidArgument)
}

// errNoLayerOption says that the kernel is older than Linux 6.7, which brought
// the option that takes one lower directory at a time.
var errNoLayerOption = errors.New("kernel does not know lowerdir+")

// attach builds the overlay by the mount API of file descriptors. It has no
// limit on the length of all options together, where mount(2) takes one page:
// about 40 layers with long paths.
func (o Overlay) attach(path, target string) error {
	fail := func(op string, err error) error {
		return &Error{Op: op, Source: "overlay", Target: target, FSType: "overlay", Flags: o.Options.Flags, Err: err}
	}
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		if errors.Is(err, unix.ENOSYS) {
			return errNoLayerOption
		}
		return fail("open", err)
	}
	defer unix.Close(fs)
	if err := o.configure(fs); err != nil {
		if errors.Is(err, errNoLayerOption) {
			return err
		}
		return fail("configure", withLog(fs, err))
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes(o.Options.Flags))
	if err != nil {
		return fail("mount", withLog(fs, err))
	}
	defer unix.Close(mnt)
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS); err != nil {
		return fail("attach", err)
	}
	return nil
}

func (o Overlay) configure(fs int) error {
	set := func(key, value string) error {
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			return fmt.Errorf("option %s=%q: %w", key, clip(value, maxValue), err)
		}
		return nil
	}
	// The source is what the mount table shows; the kernel does not use it.
	if err := set("source", "overlay"); err != nil {
		return err
	}
	for i, dir := range o.Lower {
		err := set("lowerdir+", dir)
		if i == 0 && errors.Is(err, unix.EINVAL) {
			return errNoLayerOption // the classic call says so if it is the path
		}
		if err != nil {
			return err
		}
	}
	for _, word := range o.words() {
		key, value, hasValue := strings.Cut(word, "=")
		var err error
		if hasValue {
			err = set(key, value)
		} else if err = unix.FsconfigSetFlag(fs, key); err != nil {
			err = fmt.Errorf("option %s: %w", key, err)
		}
		if err != nil {
			return err
		}
	}
	return unix.FsconfigCreate(fs)
}

// words are the options next to the lower directories.
func (o Overlay) words() []string {
	words := SplitOptions([]string{o.Options.Data})
	if o.Upper != "" {
		words = append(words, "upperdir="+o.Upper, "workdir="+o.Work)
	}
	if o.Options.Flags&unix.MS_RDONLY != 0 {
		words = append(words, "ro")
	}
	return words
}

// classic mounts by one string of options.
func (o Overlay) classic(target string, open func() (string, func(), error)) error {
	flags := o.Options.Flags
	o.Options.Flags &^= unix.MS_RDONLY // a flag here, not a word
	words := append([]string{"lowerdir=" + strings.Join(o.Lower, ":")}, o.words()...)
	r := Request{Source: "overlay", FSType: "overlay",
		Options: Options{Flags: flags, Propagation: o.Options.Propagation, Data: strings.Join(words, ",")}}
	return r.on(target, open)
}

// maxValue is the kernel's limit for one value of fsconfig(2).
const maxValue = 255

// aliases replaces paths that the option syntax cannot carry, too long or with
// its separators, by names of descriptors. The mount keeps the directories
// themselves, so the descriptors may go once it stands.
func (o *Overlay) aliases() (release func(), err error) {
	var held []*os.File
	release = func() {
		for _, f := range held {
			f.Close()
		}
	}
	short := func(path string) string {
		if err != nil || (len(path) <= maxValue && !strings.ContainsAny(path, `,:\`)) {
			return path
		}
		var f *os.File
		if f, err = openRoot(path); err != nil {
			return path
		}
		held = append(held, f)
		return FDPath(f)
	}
	o.Lower = slices.Clone(o.Lower)
	for i, dir := range o.Lower {
		o.Lower[i] = short(dir)
	}
	o.Upper, o.Work = short(o.Upper), short(o.Work)
	if err != nil {
		release()
		return nil, fmt.Errorf("open layer: %w", err)
	}
	return release, nil
}

// attributes translates the flags that belong to the mount itself.
func attributes(flags uintptr) int {
	pairs := []struct {
		flag uintptr
		attr int
	}{
		{unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY}, {unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID},
		{unix.MS_NODEV, unix.MOUNT_ATTR_NODEV}, {unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC},
		{unix.MS_NOATIME, unix.MOUNT_ATTR_NOATIME}, {unix.MS_STRICTATIME, unix.MOUNT_ATTR_STRICTATIME},
		{unix.MS_NODIRATIME, unix.MOUNT_ATTR_NODIRATIME}, {unix.MS_NOSYMFOLLOW, unix.MOUNT_ATTR_NOSYMFOLLOW},
	}
	attrs := 0
	for _, p := range pairs {
		if flags&p.flag != 0 {
			attrs |= p.attr
		}
	}
	return attrs
}

// withLog adds what the kernel wrote about the failure to the descriptor's log.
func withLog(fs int, err error) error {
	buf := make([]byte, 512)
	n, readErr := unix.Read(fs, buf)
	if readErr != nil || n <= 0 {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.TrimSpace(string(buf[:n])))
}
