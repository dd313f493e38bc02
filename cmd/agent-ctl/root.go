package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// app carries the global flags to the commands.
type app struct {
	stdio
	address string
	output  string
	timeout time.Duration

	started bool // the command line was accepted; later errors are no usage errors
}

// execute runs one command line and returns the exit code. Everything that goes
// wrong is printed here, on one line.
func execute(ctx context.Context, args []string, std stdio) int {
	a := &app{stdio: std}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(std.in)
	root.SetOut(std.out)
	root.SetErr(std.err)
	err := root.ExecuteContext(ctx)
	if err != nil && !a.started {
		err = usageError{err}
	}
	var w workloadExit
	if err != nil && !errors.As(err, &w) {
		fmt.Fprintf(std.err, "agent-ctl: %s\n", describe(err))
	}
	return exitCode(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "agent-ctl",
		Short: "Drive a Coffer agent and prepare what it consumes",
		Long: "Drive a Coffer agent and prepare what it consumes.\n\n" +
			"Addresses: vsock://CID:PORT, unix://PATH, unix://@NAME, or hvsock://PATH:PORT\n" +
			"for a port behind a hypervisor's socket file.\n\n" + exitHelp,
		Version:           version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: a.check,
	}
	f := root.PersistentFlags()
	f.StringVar(&a.address, "address", os.Getenv("COFFER_ADDRESS"), "the agent's `ADDRESS` (default $COFFER_ADDRESS)")
	f.StringVarP(&a.output, "output", "o", "table", "`FORMAT` of results: table or json")
	f.DurationVar(&a.timeout, "timeout", time.Minute, "limit for one call; 0 waits without limit")
	for name, values := range map[string][]string{"output": {"table", "json"}} {
		// The flag was defined above, which is all that can be wrong here.
		_ = root.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	root.AddCommand(
		a.infoCommand(), a.pingCommand(), a.doctorCommand(), a.rpcCommand(),
		a.runCommand(), a.execCommand(), a.logsCommand(), a.psCommand(), a.stopCommand(),
		a.imageCommand(), a.initdataCommand(), a.evidenceCommand(), a.kbsCommand(), a.vmCommand(),
	)
	return root
}

// check runs once the command line has been accepted.
func (a *app) check(*cobra.Command, []string) error {
	if a.output != "table" && a.output != "json" {
		return fmt.Errorf("--output %q: must be table or json", a.output)
	}
	if a.timeout < 0 {
		return fmt.Errorf("--timeout %s: must not be negative", a.timeout)
	}
	a.started = true
	return nil
}
