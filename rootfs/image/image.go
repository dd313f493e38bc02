// Package image makes what a guest boots from: a kernel and an initrd with the
// agent as its first program. The same inputs give the same bytes on every
// machine, because a launch measurement covers them: files are sorted, owned
// by root and dated to the epoch, and nothing is read from the machine that
// the Options do not name. There is no shell in the image, and no program but
// the agent and the pause container's.
package image

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
)

// Options are the inputs of an image. Paths are those of the building machine.
type Options struct {
	Agent    string // static program that becomes /init
	Pause    string // static program of the pause container
	Config   string // the image's own agent.toml; empty for none
	Policy   string // default policy; empty for one that refuses every request
	CABundle string // certificates the agent trusts; empty for none
	Add      []Addition
	// Modules to load in order, drivers once there is a device for them; nil for
	// DefaultModules.
	Modules []string
	// ModuleFiles are modules that the kernel package does not hold, as
	// BuildModule makes them, to load after the others.
	ModuleFiles []string
	// Spare modules lie in the image for a host that asks for them, and for
	// storages that need them; nil for DefaultSpare.
	Spare []string
	// Compression of the initrd: zstd, gzip or none. Empty is zstd.
	Compression string
	// Disk also makes disk.img, the same root on a partition.
	Disk bool
	// Out is the directory for vmlinuz, initrd.img and manifest.json.
	Out string
}

// An Addition puts a file or a directory of the building machine at an
// absolute path of the guest.
type Addition struct{ Source, Target string }

// DefaultModules is what the agent needs before it can serve, and what the
// reports of confidential hardware need. The kernels of the lock have virtio
// over PCI, ext4, FUSE and virtio-fs built in.
func DefaultModules() []string {
	return []string{
		"vsock", "vmw_vsock_virtio_transport", "vsock_loopback",
		"virtio_blk", "virtio_net", "virtio_rng",
		// Without overlayfs each container start copies the agent to memory.
		"overlay", "loop", "erofs", "squashfs",
		"ptp_kvm",                // KVM alone has that clock
		"tdx_guest", "sev_guest", // with configfs and tsm, only where the hardware is
	}
}

// DefaultSpare is what the rarer kinds of storages need. The agent loads them
// with the first of these, so that other guests boot without.
func DefaultSpare() []string {
	return []string{
		"virtio_scsi", "sd_mod", "virtio_mmio", "nfit", "virtio_pmem", "nd_pmem",
		"dm_verity", "dm_crypt", "dm_integrity", "authenc", "xts", "xfs",
	}
}

// Places in the guest that the agent knows.
const (
	configPath  = "/etc/coffer/agent.toml"
	modulesPath = "/etc/coffer/modules"
	policyPath  = "/etc/kata-opa/default-policy.rego"
	certsPath   = "/etc/ssl/certs/ca-certificates.crt"
	pauseBundle = "/pause_bundle"
)

// Build makes an image and says what it was made of. The kernel comes from the
// store; Build writes only below Options.Out.
func (s *Store) Build(ctx context.Context, o Options) (*Manifest, error) {
	deb, err := s.fetch(ctx, kernelUse)
	if err != nil {
		return nil, err
	}
	s.say("read kernel from %s %s", deb.Name, deb.Version)
	k, err := readKernel(ctx, deb.Path)
	if err != nil {
		return nil, err
	}
	wanted := o.Modules
	if wanted == nil {
		wanted = DefaultModules()
	}
	spare := o.Spare
	if spare == nil {
		spare = DefaultSpare()
	}
	for _, file := range o.ModuleFiles {
		name, err := k.add(file)
		if err != nil {
			return nil, err
		}
		wanted = append(slices.Clip(wanted), name)
	}
	modules, err := k.load(ctx, wanted, spare)
	if err != nil {
		return nil, err
	}
	m := &Manifest{Kernel: Package{deb.Name, deb.Version, deb.SHA256}}
	t, err := fill(o, modules, m)
	if err != nil {
		return nil, err
	}
	s.say("pack %d files and %d modules", len(t.entries), len(modules))
	initrd, err := pack(t, o.Compression)
	if err != nil {
		return nil, err
	}
	out := []output{{"vmlinuz", k.image}, {"initrd.img", initrd}}
	if o.Disk {
		disk, err := packDisk(ctx, t)
		if err != nil {
			return nil, err
		}
		out = append(out, output{"disk.img", disk})
	}
	return m, m.write(o.Out, out)
}

// output is a file that a build makes.
type output struct {
	name string
	data []byte
}

// write puts the files into dir, and the manifest that lists them.
func (m *Manifest) write(dir string, out []output) error {
	for _, f := range out {
		m.output(f.name, f.data)
	}
	text, err := m.encode()
	if err != nil {
		return err
	}
	for _, f := range append(out, output{"manifest.json", text}) {
		if err := writeFile(filepath.Join(dir, f.name), f.data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func pack(t *tree, compression string) ([]byte, error) {
	var out bytes.Buffer
	w, err := compressor(&out, compression)
	if err != nil {
		return nil, err
	}
	if err := writeCPIO(w, t.sorted()); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compress initrd: %w", err)
	}
	return out.Bytes(), nil
}

// Kernel returns the path of the locked kernel image alone, for virtual
// machines that bring their own initrd.
func (s *Store) Kernel(ctx context.Context) (string, error) {
	deb, err := s.fetch(ctx, kernelUse)
	if err != nil {
		return "", err
	}
	k, err := readKernel(ctx, deb.Path)
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.cache(), "tools", "vmlinuz-"+deb.SHA256[:12])
	return path, writeFile(path, k.image, 0o644)
}
