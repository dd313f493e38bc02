package sandbox

import (
	"flag"
	"log/slog"
	"os"
	"testing"

	_ "github.com/coffer-cc/coffer/agent/reexec" // containers start as copies of this test
)

func TestMain(m *testing.M) {
	flag.Parse()
	if !testing.Verbose() {
		slog.SetDefault(slog.New(slog.DiscardHandler))
	}
	os.Exit(m.Run())
}
