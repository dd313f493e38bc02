package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
)

// print writes v as JSON, or the rows as a table whose first row is the head.
func (a *app) print(v any, rows [][]string) error {
	if a.output == "json" {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = printable(row[i])
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// note tells something on stderr that is no error.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.err, "agent-ctl: %s\n", printable(fmt.Sprintf(format, args...)))
}
