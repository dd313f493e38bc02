package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/agent/boot"
	"github.com/coffer-cc/coffer/agent/config"
	"github.com/coffer-cc/coffer/evidence/tee"
)

// oneShot is a role that looks and ends. It may run beside the service: it reads
// the same settings, opens no socket and changes nothing.
type oneShot struct {
	*process
	name     string
	out, err io.Writer
	file     string // of the settings, "" as the service finds them
	output   string
	timeout  time.Duration
	broker   *config.Endpoint // of the command line, nil without
}

// flags are what all of these roles have; limit is the usual timeout.
func (o *oneShot) flags(limit time.Duration) *flag.FlagSet {
	f := flag.NewFlagSet(o.name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.file, "config", "", "")
	f.StringVar(&o.file, "c", "", "")
	f.StringVar(&o.output, "output", "text", "")
	f.StringVar(&o.output, "o", "text", "")
	f.DurationVar(&o.timeout, "timeout", limit, "")
	return f
}

// parse reads the arguments, and with done the role has ended with the code.
func (o *oneShot) parse(f *flag.FlagSet, args []string, usage string) (rest []string, code int, done bool) {
	for { // flags may stand behind other words
		err := f.Parse(args)
		switch {
		case errors.Is(err, flag.ErrHelp):
			fmt.Fprint(o.out, usage)
			return nil, 0, true
		case err != nil:
			return nil, o.misused("%v", err), true
		}
		if args = f.Args(); len(args) == 0 {
			break
		}
		rest, args = append(rest, args[0]), args[1:]
	}
	switch {
	case o.output != "text" && o.output != "json":
		return nil, o.misused("--output %q: must be text or json", o.output), true
	case o.timeout <= 0:
		return nil, o.misused("--timeout %s: must be positive", o.timeout), true
	}
	return rest, 0, false
}

// misused is the end for a command line that makes no sense.
func (o *oneShot) misused(format string, args ...any) int {
	o.tell(fmt.Sprintf(format, args...) + "; see coffer-agent " + o.name + " --help")
	return 2
}

// tell writes one line to stderr.
func (o *oneShot) tell(text string) {
	fmt.Fprintf(o.err, "coffer-agent: %s: %s\n", o.name, printable(text))
}

// begin protects the process, since secrets pass through it, and bounds its life.
func (o *oneShot) begin() (context.Context, context.CancelFunc, error) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // what matters is printed
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	end := func() { cancel(); stop() }
	if err := boot.Run(ctx, boot.ServiceSteps()); err != nil {
		end()
		return nil, nil, err
	}
	return ctx, end, nil
}

// settings are read as the service reads them.
func (o *oneShot) settings() error {
	var args []string
	if o.file != "" {
		args = []string{"--config", o.file}
	}
	sources, err := config.System(args, func() bool { return tee.Present(tee.Drivers(dialQGS)) })
	if err != nil {
		return err
	}
	if o.config, o.report, err = config.Load(sources); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}

// root reports whether this process may look at everything.
func root() bool { return os.Geteuid() == 0 }

// json prints one object.
func (o *oneShot) json(v any) {
	e := json.NewEncoder(o.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		o.tell(err.Error())
	}
}

// table prints rows in columns.
func (o *oneShot) table(rows [][]string) {
	w := tabwriter.NewWriter(o.out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = printable(row[i])
		}
		fmt.Fprintln(w, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	if err := w.Flush(); err != nil {
		o.tell(err.Error())
	}
}

// printable keeps what others wrote from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}
