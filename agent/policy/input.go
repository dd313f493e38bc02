package policy

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"
)

// Input renders what rules see of a request, a JSON object. It is called at most
// once, and not at all when nothing that the rule evaluates looks at it: writes
// carry their data as one number per byte, and no usual policy reads that.
type Input func() ([]byte, error)

// JSON is an Input that is there already.
func JSON(raw []byte) Input { return func() ([]byte, error) { return raw, nil } }

const maxInput = 32 << 20 // a message of 4 MiB with every byte as a number

// input returns what the rule sees: nothing when it does not look.
func (p *rules) input(rule string, in Input) (*ast.Term, error) {
	if !p.looksAtInput(rule) {
		return nil, nil
	}
	raw, err := in()
	if err != nil {
		return nil, err
	}
	return parseInput(raw)
}

// looksAtInput tells whether a rule, or any that its value may depend on, names
// the input. When in doubt it says yes: the compiler's graph has an edge to every
// rule that a reference can reach.
func (p *rules) looksAtInput(rule string) bool {
	if looks, ok := p.looks[rule]; ok {
		return looks
	}
	looks, seen := false, map[util.T]bool{}
	var visit func(util.T)
	visit = func(r util.T) {
		if looks || seen[r] {
			return
		}
		seen[r] = true
		ast.WalkVars(r, func(v ast.Var) bool {
			looks = looks || v.Equal(ast.InputRootDocument.Value)
			return looks
		})
		for dependency := range p.compiler.Graph.Dependencies(r) {
			visit(dependency)
		}
	}
	for _, r := range p.compiler.GetRulesWithPrefix(refTo(rule)) {
		visit(r)
	}
	if len(p.looks) < maxQueries {
		p.looks[rule] = looks
	}
	return looks
}

// parseInput checks that input is a JSON object and leaves the conversion of
// each field to the moment a rule looks at it.
func parseInput(input []byte) (*ast.Term, error) {
	if len(input) > maxInput {
		return nil, fmt.Errorf("larger than %d bytes: %w", maxInput, errdefs.ErrInvalidArgument)
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(bytes.TrimSpace(input), &raw); err != nil || raw == nil {
		return nil, fmt.Errorf("not a JSON object: %w", errdefs.ErrInvalidArgument)
	}
	fields := make(map[string]any, len(raw))
	for k, v := range raw {
		fields[k] = v
	}
	return ast.NewTerm(ast.LazyObject(fields)), nil
}
