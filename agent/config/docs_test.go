package config

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/config.md")

const docsFile = "../../docs/config.md"

const docsHead = `# Configuration

<!-- Generated from agent/config: go test ./agent/config -run TestDocs -update -->

Every setting of the agent, with each of its spellings. Later sources overrule earlier ones:

    defaults < kernel command line < environment < the image's file < initdata

- The **image's file** is ` + "`" + ImagePath + "`" + ` or what ` + "`--config FILE`" + ` names. It counts only as far as the launch
  measurement covers it: a file on a disk that nobody measures is the host's. With ` + "`--config FILE`" + ` the command line is
  not read, and the environment overrules the file. A key that the agent does not know ends the boot.
- **Initdata** brings ` + "`aa.toml` and `cdh.toml`" + ` of the pod's owner. Keys that the agent does not know are logged.
- The **kernel command line** and the **environment** are written by the host, or can be. A malformed value on the command
  line ends the boot, with the reason on the console; a value outside its bounds is logged and passed over.

Who may set a key:

| mark | meaning |
|---|---|
| host | also the command line and the environment |
| guarded | weakens protection or redirects trust: from the command line and the environment it is passed over, with one warning and a metric, unless the image's file says ` + "`trust_cmdline = true`" + `, or it says ` + "`attestation.tee = \"sample\"`" + ` and the guest has no TEE |
| measured | the image's file or, where a spelling for it stands here, initdata |
`

const tableHead = `
## %s

| in the image's file | elsewhere | mark | value | default | meaning |
|---|---|---|---|---|---|
`

func document() string {
	var out strings.Builder
	out.WriteString(docsHead)
	defaults := Default()
	for _, g := range groups() {
		fmt.Fprintf(&out, tableHead, g.title)
		for _, k := range g.keys {
			fmt.Fprintf(&out, "| %s | %s | %s | %s | %s | %s |\n", code(k.File), elsewhere(k), mark(k),
				k.value.kind(), code(k.value.show(&defaults)), k.Doc)
		}
	}
	return out.String()
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

func elsewhere(k Key) string {
	var out []string
	if k.Cmdline != "" {
		if k.Bare {
			out = append(out, code(k.Cmdline))
		}
		if !k.NoValue {
			out = append(out, code(k.Cmdline+"="))
		}
	}
	if k.Env != "" {
		out = append(out, code(k.Env)+" (environment)")
	}
	if k.AA != "" {
		out = append(out, code(k.AA)+" (aa.toml)")
	}
	if k.CDH != "" {
		out = append(out, code(k.CDH)+" (cdh.toml)")
	}
	return strings.Join(out, ", ")
}

func mark(k Key) string {
	return [...]string{Host: "host", Guarded: "guarded", Measured: "measured"}[k.Trust]
}

// TestDocs keeps the reference for users equal to the table of keys.
func TestDocs(t *testing.T) {
	want := document()
	if *update {
		if err := os.WriteFile(docsFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/config.md is stale: go test ./agent/config -run TestDocs -update")
	}
}
