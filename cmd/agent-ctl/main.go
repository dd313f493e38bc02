// Command agent-ctl speaks to an agent the way a shim does, for people: it runs
// containers, attaches to them, and calls any method of the protocol. It also
// makes what an agent consumes: initdata, encrypted and signed images, and a
// key broker for development.
//
// It is linked without cgo and holds nothing that only the guest can do. The
// agent's policy governs it like any other client.
package main

import (
	"context"
	"io"
	"os"
)

// version is set by the linker.
var version = "unknown"

// stdio is what the command reads and writes; tests bring their own.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

func main() {
	os.Exit(execute(context.Background(), os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}))
}
