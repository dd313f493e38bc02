// Command agent is the one program of a confidential guest. As PID 1 it is the
// supervisor of agent/pid1; started by that or by systemd it is the agent;
// started by libcontainer it is the init of a container, which agent/reexec
// settles before main.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/coffer-cc/coffer/agent/pid1"
	_ "github.com/coffer-cc/coffer/agent/reexec" // before everything else: containers start as this program
)

// version is set by the linker.
var version = "dev"

const usage = `coffer-agent: the agent of a confidential guest

As PID 1 it boots the guest, supervises itself and powers off at the end. As a
service it serves the agent protocol until its sandbox is destroyed.

  attest              show how far attestation gets, and end; see attest --help
  doctor              look over the guest, and end; see doctor --help

  -c, --config FILE   settings instead of the kernel command line
  -v, --version       print the version
  -h, --help          print this

Settings stand in docs/config.md. Exit codes: 0 the sandbox was destroyed,
1 the agent failed, 2 wrong usage.
`

func main() {
	os.Exit(role())
}

// role decides what this process is. The pid comes first: the arguments of
// PID 1 are words of the host.
func role() int {
	if os.Getpid() == 1 {
		pid1.Main() // does not return
	}
	if len(os.Args) == 2 && os.Args[1] == pid1.Role {
		return exit((&process{init: true}).run())
	}
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "attest":
			return attestRole(os.Args[2:], os.Stdout, os.Stderr)
		case "doctor":
			return doctorRole(os.Args[2:], os.Stdout, os.Stderr)
		}
	}
	flags := flag.NewFlagSet("coffer-agent", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	showVersion := flags.Bool("version", false, "")
	flags.BoolVar(showVersion, "v", false, "")
	file := flags.String("config", "", "")
	flags.StringVar(file, "c", "", "")
	err := flags.Parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
		return 0
	case err != nil || flags.NArg() > 0:
		fmt.Fprint(os.Stderr, usage)
		return 2
	case *showVersion:
		fmt.Println("coffer-agent", version)
		return 0
	}
	return exit((&process{args: os.Args[1:]}).run())
}

// exit says on the console why the agent ends.
func exit(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "coffer-agent:", err)
	return 1
}
