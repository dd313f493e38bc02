package policy

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
	"github.com/open-policy-agent/opa/v1/topdown/print"
)

// bannedNames lists the functions that reach out of the evaluation, to the
// network or to the process, or whose cost no bound on their arguments limits.
// A policy that names one does not load.
func bannedNames() []string {
	return []string{
		"http.send",
		"net.lookup_ip_addr",
		"net.cidr_expand", // one small text gives 2^128 addresses
		"opa.runtime",     // environment and version of the process
		"json.match_schema",
		"json.verify_schema", // a schema may refer to others by URL
		"providers.aws.sign_req",
		"rego.parse_module",
		"trace",
	}
}

func banned() map[string]struct{} {
	m := map[string]struct{}{}
	for _, name := range bannedNames() {
		m[name] = struct{}{}
	}
	return m
}

// The library looks at the clock in loops over rules, not inside these
// functions, and two small numbers make them fill the memory.
const (
	maxShift = 1 << 12
	maxRange = 1 << 20
)

// limitBuiltins replaces functions in the library's table, which is global;
// this package is the only one that evaluates Rego. The banned ones are
// replaced too, in case a compiler finds a way around the ban.
var limitBuiltins = sync.OnceFunc(func() {
	for _, name := range bannedNames() {
		topdown.RegisterBuiltinFunc(name, refuse)
	}
	limit(ast.BitsShiftLeft.Name, func(args []*ast.Term) bool { return atMost(args[1], maxShift) })
	limit(ast.NumbersRange.Name, closeTogether)
	limit(ast.NumbersRangeStep.Name, closeTogether)
})

func refuse(topdown.BuiltinContext, []*ast.Term, func(*ast.Term) error) error {
	return fmt.Errorf("function is not available to policies")
}

// limit makes a function undefined for arguments that ok does not like.
func limit(name string, ok func(args []*ast.Term) bool) {
	inner := topdown.GetBuiltin(name)
	topdown.RegisterBuiltinFunc(name, func(b topdown.BuiltinContext, args []*ast.Term, iter func(*ast.Term) error) error {
		if !ok(args) {
			return builtins.NewOperandErr(1, "out of bounds")
		}
		return inner(b, args, iter)
	})
}

func atMost(t *ast.Term, bound int64) bool {
	n, ok := t.Value.(ast.Number)
	if !ok {
		return true // the function itself complains
	}
	i, ok := n.Int64()
	return ok && i <= bound
}

func closeTogether(args []*ast.Term) bool {
	a, ok1 := args[0].Value.(ast.Number)
	b, ok2 := args[1].Value.(ast.Number)
	if !ok1 || !ok2 {
		return true
	}
	i, ok1 := a.Int64()
	j, ok2 := b.Int64()
	const far = 1 << 60 // keeps the difference from overflowing
	if !ok1 || !ok2 || max(i, j) > far || min(i, j) < -far {
		return false
	}
	return max(i, j)-min(i, j) <= maxRange
}

// Bounds of the text of one evaluation and of one print in it. genpolicy's
// rules print whole requests.
const (
	maxPrints = 64 << 10
	maxPrint  = 8 << 10
)

// printer collects what rules print, in the words of the reference engine.
type printer struct {
	text strings.Builder
	full bool
}

// Print implements print.Hook.
func (p *printer) Print(c print.Context, message string) error {
	if p.full {
		return nil
	}
	if len(message) > maxPrint {
		message = strings.ToValidUTF8(message[:maxPrint], "") + "…"
	}
	if p.text.Len()+len(message) > maxPrints {
		p.full = true
		message = "…"
	}
	if p.text.Len() > 0 {
		p.text.WriteByte(' ')
	}
	if c.Location != nil {
		p.text.WriteString(fileName + ":" + strconv.Itoa(c.Location.Row) + ": ")
	}
	p.text.WriteString(message)
	return nil
}

func (p *printer) String() string { return p.text.String() }
