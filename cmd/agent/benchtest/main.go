// Command benchtest measures the agent as a whole process, beside what it could
// be at best and beside the tools that do the same: a bare ttRPC server, a
// program with nothing but libcontainer (libcontainertest), runc, skopeo with
// umoci, and containerd. Rivals take turns within one run, so that a busy
// machine is busy for all of them; the figures are medians, and ratios say more
// than they do. `make bench` builds all of it and runs it.
//
// Everything happens in namespaces of its own with a /run of its own, which
// hold whatever a run that is cut short leaves.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
)

// The words by which this program starts itself.
const (
	roleInside = "inside" // in the namespaces
	roleBare   = "bare"   // the bare ttRPC server
)

// options are what the command line says.
type options struct {
	agent  string // the binary to measure
	floor  string // libcontainertest
	peers  string // directory with Debian's runc and containerd, unpacked
	images string // directory that keeps the generated images
	out    string // file for the table as JSON
	tests  string // directory with test programs of evidence, whose benchmarks have goals
	only   *regexp.Regexp
	mega   int64 // size of the image to pull, compressed
	cgroup string
}

func parse(args []string) (o options, err error) {
	f := flag.NewFlagSet("benchtest", flag.ContinueOnError)
	f.StringVar(&o.agent, "agent", "bin/coffer-agent", "`FILE` to measure")
	f.StringVar(&o.floor, "libcontainer", "", "`FILE` built from libcontainertest")
	f.StringVar(&o.peers, "peers", "", "`DIR` with runc and containerd as Debian packs them")
	f.StringVar(&o.images, "images", "", "`DIR` that keeps the images to pull")
	f.StringVar(&o.tests, "tests", "", "`DIR` with kbs.test, tee.test, verify.test and measure.test")
	f.StringVar(&o.out, "out", "", "`FILE` for the table as JSON")
	f.Int64Var(&o.mega, "mb", 500, "compressed size of the image to pull, in `MB`")
	f.StringVar(&o.cgroup, "cgroup", "", "parent of all cgroups (set by the program itself)")
	only := f.String("run", "", "measure only what fits this `REGEXP`: "+names())
	if err = f.Parse(args); err == nil {
		o.only, err = regexp.Compile(*only)
	}
	return o, err
}

func main() {
	if err := role(); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func role() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	args := os.Args[1:]
	if len(args) == 2 && args[0] == roleBare {
		return serveBare(ctx, args[1])
	}
	inside := len(args) > 0 && args[0] == roleInside
	if inside {
		args = args[1:]
	}
	o, err := parse(args)
	switch {
	case err != nil:
		return err
	case inside:
		return measure(ctx, o)
	}
	return enclose(ctx, args)
}

// subjects are what is measured, in the order of the table.
func subjects() []subject {
	return []subject{
		{"process", (*bench).process},
		{"calls", (*bench).calls},
		{"containers", (*bench).containers},
		{"streams", (*bench).streams},
		{"crowd", (*bench).crowd},
		{"pull", (*bench).pull},
		{"attestation", (*bench).attestation},
	}
}

type subject struct {
	name string
	run  func(*bench) error
}

func names() (all string) {
	for _, s := range subjects() {
		all += " " + s.name
	}
	return all
}

// measure runs inside the namespaces.
func measure(ctx context.Context, o options) error {
	b, err := prepare(ctx, o)
	if err != nil {
		return err
	}
	for _, s := range subjects() {
		if !o.only.MatchString(s.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", s.name)
		if err := s.run(b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	b.table.print(os.Stdout)
	if o.out == "" {
		return nil
	}
	return b.table.save(o.out)
}
