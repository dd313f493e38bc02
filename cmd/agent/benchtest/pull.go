package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const pulls = 5

// cost is what one pull took.
type cost struct {
	wall, cpu time.Duration
	peak      float64 // MB, of the largest process
}

// puller brings an image here and unpacks it.
type puller struct {
	name string
	pull func() (cost, error)
	all  []cost
}

// pull compares pulls of one image, each into empty memory.
func (b *bench) pull() error {
	src, err := b.openSource()
	if err != nil {
		return err
	}
	defer src.stop()
	agent := func(tag string) func() (cost, error) {
		return func() (cost, error) { return b.agentPulls(src, tag) }
	}
	gz, zst, sealed := &puller{name: "agent", pull: agent("gzip")}, &puller{name: "agent", pull: agent("zstd")}, &puller{name: "agent", pull: agent("sealed")}
	umoci := &puller{name: "skopeo + umoci", pull: func() (cost, error) { return b.skopeoPulls(src) }}
	ctr := &puller{name: "containerd, ctr", pull: func() (cost, error) { return b.containerdPulls(src) }}
	all := []*puller{gz, zst, sealed, umoci, ctr}
	for range pulls {
		for _, i := range turns(len(all)) {
			c, err := all[i].pull()
			if err != nil {
				return fmt.Errorf("pull by %s: %w", all[i].name, err)
			}
			all[i].all = append(all[i].all, c)
		}
	}
	b.pullRows(gz, zst, sealed, umoci, ctr)
	return nil
}

func (b *bench) pullRows(gz, zst, sealed, umoci, ctr *puller) {
	what := fmt.Sprintf("pull of %d MB ", b.mega)
	wall := func(c cost) float64 { return c.wall.Seconds() }
	cpu := func(c cost) float64 { return c.cpu.Seconds() }
	peak := func(c cost) float64 { return c.peak }
	b.table.versus(what+"gzip", "s", gz.of(wall), umoci.name, umoci.of(wall), goal{ratioAtMost: 0.5})
	b.table.versus(what+"gzip, processor time", "s", gz.of(cpu), umoci.name, umoci.of(cpu), goal{})
	b.table.versus(what+"zstd", "s", zst.of(wall), ctr.name, ctr.of(wall), goal{})
	b.table.versus(what+"zstd, processor time", "s", zst.of(cpu), ctr.name, ctr.of(cpu), goal{})
	b.table.versus(what+"gzip, encrypted", "s", sealed.of(wall), "the same in the clear", gz.of(wall), goal{ratioAtMost: 1.3})
	b.table.versus(what+"gzip, encrypted, processor time", "s", sealed.of(cpu), "the same in the clear", gz.of(cpu), goal{})
	b.table.versus(what+"gzip, peak RSS", "MB", gz.of(peak), umoci.name, umoci.of(peak), goal{atMost: 128})
	b.table.versus(what+"zstd, peak RSS", "MB", zst.of(peak), ctr.name, ctr.of(peak), goal{atMost: 128})
	b.table.alone(what+"gzip, encrypted, peak RSS", "MB", sealed.of(peak), goal{atMost: 128})
	b.table.note("pulls: one layer, from Debian's docker-registry on loopback without TLS, its files in the page cache, into memory; the agent's time is that of CreateContainer: fetch, check, unpack, overlay mounted, container made; skopeo copies to an OCI layout and umoci unpacks that; containerd fetches and unpacks into overlayfs snapshots")
}

func (p *puller) of(f func(cost) float64) float64 {
	var all []float64
	for _, c := range p.all {
		all = append(all, f(c))
	}
	return middle(all)
}

// agentPulls has a new agent create a container from the image.
func (b *bench) agentPulls(src *source, tag string) (cost, error) {
	s, err := b.startSandbox(fmt.Sprintf("%s[kbc]\nname = \"cc_kbc\"\nurl = %q\n", insecure(src.host), src.broker))
	if err != nil {
		return cost{}, err
	}
	defer os.RemoveAll("/run/kata-containers/image")
	defer s.stop()
	p := &pod{b: b, s: s}
	began := time.Now()
	if err := p.pull(b.ctx, "pulled", src.ref(tag)); err != nil {
		return cost{}, err
	}
	c := cost{wall: time.Since(began)}
	if c.peak, err = peakOf(s.cmd.Process.Pid); err == nil {
		c.cpu, err = spentBy(s.cmd.Process.Pid)
	}
	if err != nil {
		return cost{}, err
	}
	return c, p.remove("pulled")
}

// skopeoPulls fetches with skopeo and unpacks with umoci.
func (b *bench) skopeoPulls(src *source) (cost, error) {
	dir := filepath.Join(b.dir, "umoci")
	defer os.RemoveAll(dir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return cost{}, err
	}
	oci := filepath.Join(dir, "oci") + ":gzip"
	return timed(
		exec.Command("skopeo", "copy", "--quiet", "--src-tls-verify=false", "docker://"+src.ref("gzip"), "oci:"+oci),
		exec.Command("umoci", "unpack", "--image", oci, filepath.Join(dir, "bundle")),
	)
}

// timed runs commands one after the other.
func timed(cmds ...*exec.Cmd) (c cost, err error) {
	began := time.Now()
	for _, cmd := range cmds {
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			return c, err
		}
		stop := watchPeak(cmd.Process.Pid, &c.peak)
		err := cmd.Wait()
		stop()
		if err != nil {
			return c, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out.Bytes())
		}
		c.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	c.wall = time.Since(began)
	return c, nil
}

// watchPeak raises peak to the most memory of a process until it is stopped. The
// kernel's own account at the end of a child would do, but begins with the memory
// of its parent.
func watchPeak(pid int, peak *float64) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			if now, err := peakOf(pid); err == nil {
				*peak = max(*peak, now)
			}
			select {
			case <-quit:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return func() { close(quit); <-done }
}

// containerdPulls has a new containerd pull; its time counts with that of ctr.
func (b *bench) containerdPulls(src *source) (cost, error) {
	dir := filepath.Join(b.dir, "containerd")
	defer os.RemoveAll(dir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return cost{}, err
	}
	config, socket := filepath.Join(dir, "config.toml"), filepath.Join(dir, "sock")
	text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n",
		filepath.Join(dir, "root"), filepath.Join(dir, "state"), socket)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return cost{}, err
	}
	daemon := exec.Command(filepath.Join(b.peers, "usr/bin/containerd"), "--config", config)
	if err := daemon.Start(); err != nil {
		return cost{}, err
	}
	defer daemon.Wait()
	defer daemon.Process.Kill()
	ctr := func(args ...string) *exec.Cmd {
		return exec.Command(filepath.Join(b.peers, "usr/bin/ctr"), append([]string{"--address", socket, "--namespace", "bench"}, args...)...)
	}
	for end := time.Now().Add(giveUp); ctr("version").Run() != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			return cost{}, fmt.Errorf("containerd does not answer")
		}
	}
	before, err := spentBy(daemon.Process.Pid)
	if err != nil {
		return cost{}, err
	}
	c, err := timed(ctr("images", "pull", "--plain-http", "--snapshotter", "overlayfs", src.ref("zstd")))
	if err != nil {
		return cost{}, err
	}
	after, err := spentBy(daemon.Process.Pid)
	if err != nil {
		return cost{}, err
	}
	c.cpu += after - before
	peak, err := peakOf(daemon.Process.Pid)
	c.peak = max(c.peak, peak)
	return c, err
}
