package policy

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/open-policy-agent/opa/v1/ast"
)

// The bounds of a policy are those of the reference agent. Lines of realistic
// policies reach kilobytes, because each holds a variable of the environment.
const (
	maxText  = 16 << 20
	maxLine  = 64 << 10
	maxLines = 200_000
)

// fileName stands before the line number in printed text, where users of
// genpolicy expect it.
const fileName = "agent_policy"

const resultVar = ast.Var("result")

// rules is a compiled policy with the state it has built up. One goroutine at
// a time may use it.
type rules struct {
	compiler *ast.Compiler
	state    *state
	lenient  bool                // see AllowRequestsFailingPolicy
	queries  map[string]ast.Body // by name of the rule
	looks    map[string]bool     // by name of the rule; see looksAtInput
}

// compile turns text into rules with an empty state.
//
// The compiler's type check is left out: it refuses a reference to a key that
// the policy's data does not have, where the reference engine finds it
// undefined, and genpolicy's rules are full of those.
func compile(text string) (r *rules, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("compiler failed: %w", errdefs.ErrInvalidArgument)
		}
	}()
	if err := checkSize(text); err != nil {
		return nil, err
	}
	module, version, err := parse(text)
	if err != nil {
		return nil, err
	}
	if got := module.Package.Path.String(); got != "data."+fileName {
		return nil, fmt.Errorf("package is not %s: %w", fileName, errdefs.ErrInvalidArgument)
	}
	c := ast.NewCompiler().
		WithDefaultRegoVersion(version).
		WithSkipStages(ast.StageCheckTypes).
		WithUnsafeBuiltins(banned()).
		WithEnablePrintStatements(true)
	c.Compile(map[string]*ast.Module{fileName: module})
	if c.Failed() {
		return nil, fmt.Errorf("%w: %w", firstError(c.Errors), errdefs.ErrInvalidArgument)
	}
	return &rules{compiler: c, state: newState(), queries: map[string]ast.Body{}, looks: map[string]bool{}}, nil
}

// parse reads the dialect that the reference engine reads, Rego v0, and only
// when that fails today's, so that a text means the same to both engines
// whenever both understand it.
func parse(text string) (*ast.Module, ast.RegoVersion, error) {
	module, err := ast.ParseModuleWithOpts(fileName, text, ast.ParserOptions{RegoVersion: ast.RegoV0})
	if err == nil && module != nil {
		return module, ast.RegoV0, nil
	}
	module, err1 := ast.ParseModuleWithOpts(fileName, text, ast.ParserOptions{RegoVersion: ast.RegoV1})
	if err1 == nil && module != nil {
		return module, ast.RegoV1, nil
	}
	if err == nil {
		return nil, 0, fmt.Errorf("text is empty: %w", errdefs.ErrInvalidArgument)
	}
	return nil, 0, fmt.Errorf("%w: %w", firstError(err), errdefs.ErrInvalidArgument)
}

// firstError keeps the answer to a bad policy short: one fault with its line,
// without the excerpt of the text that the parser adds.
func firstError(err error) error {
	var list ast.Errors
	switch e := err.(type) {
	case ast.Errors:
		list = e
	case *ast.Error:
		list = ast.Errors{e}
	}
	if len(list) == 0 {
		return fmt.Errorf("malformed text")
	}
	message, _, _ := strings.Cut(list[0].Message, "\n")
	if list[0].Location == nil {
		return fmt.Errorf("%s: %s", list[0].Code, message)
	}
	return fmt.Errorf("line %d: %s: %s", list[0].Location.Row, list[0].Code, message)
}

func checkSize(text string) error {
	if len(text) > maxText {
		return fmt.Errorf("text exceeds %d bytes: %w", maxText, errdefs.ErrInvalidArgument)
	}
	n := 0
	for line := range strings.Lines(text) {
		n++
		if n > maxLines {
			return fmt.Errorf("text exceeds %d lines: %w", maxLines, errdefs.ErrInvalidArgument)
		}
		if len(line) > maxLine {
			return fmt.Errorf("line %d exceeds %d bytes: %w", n, maxLine, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// query returns the prepared form of result = data.agent_policy.<name>. Names
// come from the table of calls, so the map stays small.
func (p *rules) query(name string) ast.Body {
	if q, ok := p.queries[name]; ok {
		return q
	}
	ref := refTo(name)
	q := ast.NewBody(ast.Equality.Expr(ast.NewTerm(resultVar), ast.NewTerm(ref)))
	if len(p.queries) < maxQueries {
		p.queries[name] = q
	}
	return q
}

const maxQueries = 256

func refTo(name string) ast.Ref {
	return ast.Ref{ast.DefaultRootDocument, ast.StringTerm(fileName), ast.StringTerm(name)}
}

// has tells whether the policy has a rule of that name, be it a default alone
// or one that gives only a member of the value.
func (p *rules) has(name string) bool { return len(p.compiler.GetRulesWithPrefix(refTo(name))) > 0 }
