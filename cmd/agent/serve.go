package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/boot"
	"github.com/coffer-cc/coffer/agent/clock"
	"github.com/coffer-cc/coffer/agent/config"
	"github.com/coffer-cc/coffer/agent/console"
	"github.com/coffer-cc/coffer/agent/extension"
	"github.com/coffer-cc/coffer/agent/logging"
	"github.com/coffer-cc/coffer/agent/network"
	"github.com/coffer-cc/coffer/agent/policy"
	"github.com/coffer-cc/coffer/evidence"
	document "github.com/coffer-cc/coffer/evidence/initdata"
	"github.com/coffer-cc/coffer/evidence/tee"
	"github.com/coffer-cc/coffer/mount/device"
	"github.com/coffer-cc/coffer/rpc/socket"
	"github.com/coffer-cc/coffer/rpc/tracing"
)

// flushTime is how long the last lines may take to reach the console.
const flushTime = time.Second

// process is one life of the agent, from its start to its end.
type process struct {
	init bool     // started by our own PID 1, so the guest is bare
	args []string // of the command line, believed

	onlooker bool // beside an agent that runs: nothing of the guest is changed

	config   config.Config
	platform evidence.Collector // nil without one
	missing  error              // why there is none
	document *document.Document // the owner's, nil without one
	bound    bool               // the hardware vouches for the document
	ledger   *ledger
	report   config.Report
	sink     *logging.Sink
	clock    *clock.Keeper
	tracer   *tracing.Tracer // nil without spans
	group    *errgroup.Group // every loop of the program; the first to fail ends it
	ctx      context.Context // of the loops
}

// run boots, serves until the host destroys the sandbox, a signal comes or a
// loop fails, and cleans up.
func (p *process) run() error {
	debug.SetMemoryLimit(memoryLimit)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	loops, cancel := context.WithCancel(context.Background())
	defer cancel()
	p.group, p.ctx = errgroup.WithContext(loops)
	p.clock = clock.New()
	if err := p.configure(); err != nil {
		return err
	}
	served := p.bootAndServe(ctx)
	if served != nil {
		slog.Error("the agent ends", "error", served)
	}
	flush, done := context.WithTimeout(context.Background(), flushTime)
	defer done()
	_ = p.sink.Flush(flush) // the error is returned and printed besides
	cancel()
	return errors.Join(served, p.group.Wait())
}

// configure reads the settings and begins to log.
func (p *process) configure() error {
	sources, err := config.System(p.args, func() bool { return tee.Present(tee.Drivers(dialQGS)) })
	if err != nil {
		return err
	}
	if p.config, p.report, err = config.Load(sources); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	p.log(logging.Options{Level: p.config.Log.Level, Version: version})
	p.report.Log(p.ctx)
	return p.trace()
}

// trace sends spans to the host, where the image wants that.
func (p *process) trace() (err error) {
	if p.config.Trace {
		p.tracer, err = tracing.Start(p.ctx, func(ctx context.Context) (net.Conn, error) {
			return socket.Dial(ctx, fmt.Sprintf("vsock://%d:%d", hostCID, tracing.HostPort))
		})
	}
	return err
}

func (p *process) log(o logging.Options) {
	p.sink = logging.Setup(o)
	p.loop(p.sink.Run)
}

// loop runs f until the program ends.
func (p *process) loop(f func(context.Context) error) {
	p.group.Go(func() error {
		if err := f(p.ctx); err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})
}

func (p *process) bootAndServe(ctx context.Context) error {
	modules := &boot.Modules{Root: "/", File: boot.ModulesFile}
	finder := &device.Finder{Timeout: p.config.Timeouts.Hotplug}
	if p.init {
		finder.Drivers = modules
	}
	stack, err := network.Open(finder)
	if err != nil {
		return err
	}
	defer stack.Close()
	if err := p.boot(ctx, stack, modules); err != nil {
		return err
	}
	if err := p.keepClock(); err != nil {
		return err
	}
	if err := p.openLogPort(ctx); err != nil {
		return err
	}
	policy, err := p.check(ctx)
	if err != nil {
		return p.refuse(ctx, err)
	}
	// Not earlier: who is root before the record of it could do without.
	if err := p.openConsole(ctx); err != nil {
		return err
	}
	if err := errors.Join(p.keepClock(), p.followHost(), checkComponents(p.config.Workload), p.adoptExtension(ctx, extension.CoCo)); err != nil {
		return err
	}
	g, err := p.build(finder, stack, policy)
	if err != nil {
		return err
	}
	g.server.Open()
	p.loop(finder.Run)
	p.loop(g.memory.Run)
	p.loop(heedMemory)
	if err := p.openStreams(ctx, g); err != nil {
		return err
	}
	return p.serve(ctx, g)
}

// check finds the platform and compares what the guest was booted with with
// it. Until it has succeeded nothing of the document has taken effect.
func (p *process) check(ctx context.Context) (engine *policy.Rego, err error) {
	if p.platform, err = p.findPlatform(ctx); err != nil {
		return nil, err
	}
	if engine, err = p.adoptInitdata(ctx); err != nil {
		return nil, err
	}
	p.ledger, err = p.openLedger(ctx)
	return engine, err
}

// boot makes the guest usable. Where another init has done that, only the
// agent's own protection is left to do.
func (p *process) boot(ctx context.Context, stack *network.Stack, modules *boot.Modules) error {
	if !p.init {
		return boot.Run(ctx, boot.ServiceSteps())
	}
	return boot.Run(ctx, boot.Steps(boot.Options{
		Root: "/", CgroupV1: false, Modules: modules, LoopbackUp: stack.LoopbackUp,
	}))
}

// openLogPort moves the log to its vsock port, once the guest can have one.
func (p *process) openLogPort(ctx context.Context) error {
	port := p.config.Log.VPort
	if port == 0 {
		return nil
	}
	l, err := listenVsock(ctx, port)
	if err != nil {
		return fmt.Errorf("open the log port: %w", err)
	}
	p.log(logging.Options{Level: p.config.Log.Level, Version: version, Listener: l})
	return nil
}

// openConsole lets somebody in beside every policy, where the image's owner
// wants that.
func (p *process) openConsole(ctx context.Context) error {
	if !p.config.Console.Enabled {
		return nil
	}
	slog.WarnContext(ctx, "debug console is open: who reaches it is root beside every policy", "port", p.config.Console.VPort)
	shells := console.Console{Shells: console.Shells()}
	if p.config.Console.VPort == 0 {
		p.loop(func(ctx context.Context) error { return shells.Serial(ctx, "/dev/console") })
		return nil
	}
	l, err := listenVsock(ctx, p.config.Console.VPort)
	if err != nil {
		return fmt.Errorf("open the debug console: %w", err)
	}
	p.loop(func(ctx context.Context) error { return shells.Serve(ctx, l) })
	return nil
}

// openStreams lets the host move the streams of processes past the API.
func (p *process) openStreams(ctx context.Context, g *graph) error {
	if g.streams == nil {
		return nil
	}
	l, err := listenVsock(ctx, p.config.Server.PassFDPort, p.peers()...)
	if err != nil {
		return fmt.Errorf("open the port for streams: %w", err)
	}
	p.loop(func(ctx context.Context) error { return g.streams.Run(ctx, l) })
	return nil
}

// listenVsock listens for the host, and for whom the options admit besides.
func listenVsock(ctx context.Context, port uint32, peers ...socket.Option) (net.Listener, error) {
	return socket.Listen(ctx, "vsock://-1:"+strconv.FormatUint(uint64(port), 10), peers...)
}

// serve answers until the end and takes the graph down in order: calls first,
// then the pod.
func (p *process) serve(ctx context.Context, g *graph) error {
	// Before the host can ask for a workload.
	if err := p.openWorkload(ctx, g.guarded); err != nil {
		return err
	}
	l, err := socket.Listen(ctx, p.config.Server.Addr, p.peers()...)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", p.config.Server.Addr, err)
	}
	served := make(chan error, 1)
	p.group.Go(func() error {
		err := g.server.Serve(l)
		served <- err
		return err
	})
	p.loop(g.server.Watch)
	slog.Info("ready", "address", p.config.Server.Addr, "ms", sinceKernelStart().Milliseconds())
	select {
	case <-ctx.Done():
		slog.Info("stopping", "why", "signal")
	case <-g.destroyed:
		slog.Info("stopping", "why", "sandbox was destroyed")
	case <-p.ctx.Done():
		err = p.group.Wait()
	}
	end, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	err = errors.Join(err, g.stop(end))
	p.tracer.Stop(end)
	return err
}

// stopTime bounds the whole way down; PID 1 or systemd does the rest.
const stopTime = 10 * time.Second

// sinceKernelStart is zero where the kernel does not tell.
func sinceKernelStart() time.Duration {
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	s, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return time.Duration(s * float64(time.Second))
}
