package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// floor is the program with nothing but libcontainer, which stays up as the
// agent does.
type floor struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (b *bench) startFloor() (*floor, error) {
	config := filepath.Join(b.dir, "floor.json")
	if err := b.writeSpec(config, "floor", "true"); err != nil {
		return nil, err
	}
	f := &floor{cmd: exec.Command(b.floor, config, filepath.Join(b.dir, "floor"))}
	f.cmd.Stderr = os.Stderr
	in, err := f.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	f.in, f.out = in, bufio.NewReader(out)
	return f, f.cmd.Start()
}

func (f *floor) stop() {
	f.in.Close()
	f.cmd.Wait()
}

// ask sends one command and returns the times of the answer.
func (f *floor) ask(what, id string) ([]time.Duration, error) {
	fmt.Fprintln(f.in, what, id)
	line, err := f.out.ReadString('\n')
	if err != nil {
		return nil, err
	}
	var took []time.Duration
	for _, word := range strings.Fields(line) {
		ns, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %s", what, strings.TrimSpace(line))
		}
		took = append(took, time.Duration(ns))
	}
	return took, nil
}

func (f *floor) life(id string) (started, whole time.Duration, err error) {
	took, err := f.ask("life", id)
	if err != nil {
		return 0, 0, err
	}
	return took[0], took[1], nil
}

func (f *floor) run(id string) error {
	_, err := f.ask("run", id)
	return err
}

func (f *floor) exec(id string) (time.Duration, error) {
	took, err := f.ask("exec", id)
	if err != nil {
		return 0, err
	}
	return took[0], nil
}

func (f *floor) kill(id string) error {
	_, err := f.ask("kill", id)
	return err
}

func (f *floor) spent() (time.Duration, error) { return spentBy(f.cmd.Process.Pid) }

// runc is Debian's runc, driven as a shim does: create, start, wait, delete.
type runc struct {
	b             *bench
	path, bundles string
	used          time.Duration
}

func (b *bench) newRunc() (*runc, error) {
	r := &runc{b: b, path: filepath.Join(b.peers, "usr/sbin/runc"), bundles: filepath.Join(b.dir, "bundles")}
	out, err := exec.Command(r.path, "--version").Output()
	if err != nil {
		return nil, err
	}
	first, _, _ := strings.Cut(string(out), "\n")
	b.table.note("runc: %s as Debian packs it, a process for each of create, start, delete and exec", first)
	return r, nil
}

func (r *runc) do(args ...string) error {
	cmd := exec.Command(r.path, append([]string{"--root", filepath.Join(r.b.dir, "runc")}, args...)...)
	// Files, not pipes: the container inherits them and would hold a pipe open.
	log, err := os.OpenFile(filepath.Join(r.b.dir, "runc.log"), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("runc %v: %w: %s", args, err, text)
	}
	r.used += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return nil
}

func (r *runc) spent() (time.Duration, error) { return r.used, nil }

// runs makes the bundle and then, in the time that counts, creates and starts.
func (r *runc) runs(id string, args ...string) (began time.Time, pid int, err error) {
	bundle := filepath.Join(r.bundles, id)
	if err := os.MkdirAll(bundle, 0o700); err != nil {
		return began, 0, err
	}
	if err := r.b.writeSpec(filepath.Join(bundle, "config.json"), "runc-"+id, args...); err != nil {
		return began, 0, err
	}
	began = time.Now()
	pidFile := filepath.Join(bundle, "pid")
	if err := r.do("create", "--bundle", bundle, "--pid-file", pidFile, id); err != nil {
		return began, 0, err
	}
	if err := r.do("start", id); err != nil {
		return began, 0, err
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return began, 0, err
	}
	pid, err = strconv.Atoi(string(text))
	return began, pid, err
}

func (r *runc) life(id string) (started, whole time.Duration, err error) {
	began, pid, err := r.runs(id, "true")
	if err != nil {
		return 0, 0, err
	}
	started = time.Since(began)
	// runc has gone, so its child is ours: this is process 1 of the namespace.
	var usage unix.Rusage
	if _, err := unix.Wait4(pid, nil, 0, &usage); err != nil {
		return 0, 0, fmt.Errorf("wait for the container: %w", err)
	}
	r.used += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	err = r.do("delete", id)
	return started, time.Since(began), err
}

func (r *runc) run(id string) error {
	_, _, err := r.runs(id, "sleep", "100000")
	return err
}

func (r *runc) exec(id string) (time.Duration, error) {
	began := time.Now()
	err := r.do("exec", id, "true")
	return time.Since(began), err
}

func (r *runc) kill(id string) error { return r.do("delete", "--force", id) }

// writeSpec writes config.json for a rival.
func (b *bench) writeSpec(file, id string, args ...string) error {
	text, err := json.Marshal(b.spec(id, args...))
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}
