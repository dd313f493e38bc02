// Package policy decides which calls of the host are carried out. The rules are
// Rego in the package agent_policy, one rule per request message, as genpolicy
// and the Kata tools write them; they see the request as JSON and may keep a
// small state from call to call.
//
// OPA's compiler and evaluator are used because these policies are written for
// it. Its rego package is not: it would add megabytes for nothing used here.
package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/containerd/errdefs"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// Decision is the answer to one call. Reason is the text that the rules
// printed, or says that there are no rules; the host may see it.
type Decision struct {
	Allowed bool
	Reason  string
}

// Denial is the text that the host gets for a refused call. Runtimes and the
// people who read their logs look for its middle part.
func (d Decision) Denial(endpoint string) string {
	if d.Reason == "" {
		return endpoint + " is blocked by policy"
	}
	return endpoint + " is blocked by policy: " + d.Reason
}

// Engine is what the gate needs. *Rego is the only one there is: a guest that
// allows everything has a policy file which says so.
type Engine interface {
	Allow(ctx context.Context, endpoint string, input Input) (Decision, error)
	Replace(ctx context.Context, text string) error
}

const (
	evaluationTime = 5 * time.Second // a policy of a large pod takes milliseconds
	maxEndpoint    = 64
	noPolicy       = "no policy loaded"
	lenientRule    = "AllowRequestsFailingPolicy"
)

// Rego evaluates one policy at a time, one call at a time: a call may change
// the state that the next one is judged by. It is safe for concurrent use.
type Rego struct {
	turn   chan struct{} // holds one token while nobody uses rules
	rules  *rules        // nil until a policy is loaded; guarded by turn
	budget time.Duration
}

var _ Engine = (*Rego)(nil)

// New returns an engine without a policy, which denies every call.
func New() *Rego {
	limitBuiltins()
	r := &Rego{turn: make(chan struct{}, 1), budget: evaluationTime}
	r.turn <- struct{}{}
	return r
}

// Allow decides whether the call named endpoint, which is the name of its
// request message, may proceed with this input. A false Decision is not an error. An error means that no decision was reached, for
// instance because no rule has that name, and the caller then refuses the call.
//
// Changes of the state that an allowing rule asks for are made before Allow
// returns, and stay when the call fails afterwards. The reference agent does
// the same and genpolicy counts on it: a retry of the same call is judged by
// the state that the first one left.
func (r *Rego) Allow(ctx context.Context, endpoint string, input Input) (Decision, error) {
	return r.ask(ctx, endpoint, input, false)
}

// AllowUnlessRuled is Allow for a question that is this agent's own and that
// policies made for other agents do not know: one without a rule of that name
// allows. Without any policy the answer stays no.
func (r *Rego) AllowUnlessRuled(ctx context.Context, rule string, input Input) (Decision, error) {
	return r.ask(ctx, rule, input, true)
}

func (r *Rego) ask(ctx context.Context, endpoint string, input Input, optional bool) (Decision, error) {
	if !isName(endpoint) {
		return Decision{}, fmt.Errorf("policy: name of the request is malformed: %w", errdefs.ErrInvalidArgument)
	}
	ctx, cancel := context.WithTimeout(ctx, r.budget)
	defer cancel()
	if err := r.lock(ctx); err != nil {
		return Decision{}, fmt.Errorf("%s: wait for policy: %w", endpoint, err)
	}
	defer r.unlock()
	if r.rules == nil {
		return Decision{Reason: noPolicy}, nil
	}
	if optional && !r.rules.has(endpoint) {
		return Decision{Allowed: true}, nil
	}
	in, err := r.rules.input(endpoint, input)
	if err != nil {
		return Decision{}, fmt.Errorf("%s: internal error: policy input: %w", endpoint, err)
	}
	d, err := r.rules.decide(ctx, endpoint, in)
	if err != nil {
		return Decision{}, fmt.Errorf("%s: internal error: evaluate policy: %w", endpoint, err)
	}
	return d, nil
}

// Replace compiles text and puts it in place of the policy in force, with an
// empty state. When that fails the policy in force stays; a text that is no
// valid policy is an errdefs.ErrInvalidArgument.
func (r *Rego) Replace(ctx context.Context, text string) error {
	next, err := compile(text)
	if err != nil {
		return fmt.Errorf("load policy: %w", err)
	}
	// The new rules alone decide whether they are lenient. Nothing of the old
	// policy may have a say, or a lenient one could never be left again.
	evalCtx, cancel := context.WithTimeout(ctx, r.budget)
	defer cancel()
	next.lenient = next.declaresLenient(evalCtx)
	if err := r.lock(ctx); err != nil {
		return fmt.Errorf("load policy: %w", err)
	}
	defer r.unlock()
	r.rules = next
	if next.lenient {
		slog.WarnContext(ctx, "policy allows requests that fail it", "rule", lenientRule)
	}
	return nil
}

func (r *Rego) lock(ctx context.Context) error {
	select {
	case <-r.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Rego) unlock() { r.turn <- struct{}{} }

// decide evaluates one rule and judges its value.
func (p *rules) decide(ctx context.Context, endpoint string, input *ast.Term) (Decision, error) {
	value, prints, err := p.eval(ctx, endpoint, input)
	if err != nil {
		return Decision{}, err
	}
	d := Decision{Reason: prints}
	switch v := value.(type) {
	case nil:
		if !p.lenient {
			return Decision{}, fmt.Errorf("no rule gives a value: %w", errdefs.ErrInternal)
		}
	case ast.Boolean:
		d.Allowed = bool(v)
	case ast.Object:
		if d.Allowed, err = p.obey(v); err != nil {
			return Decision{}, err
		}
	default:
		return Decision{}, fmt.Errorf("rule gives neither a boolean nor an object: %w", errdefs.ErrInternal)
	}
	d.Allowed = d.Allowed || p.lenient
	return d, nil
}

// obey reads a value of the form {"allowed": bool, "ops": [RFC 6902]} and, if
// it allows, applies the operations to the state.
func (p *rules) obey(v ast.Object) (bool, error) {
	allowed, ok := field(v, "allowed").(ast.Boolean)
	if !ok {
		return false, fmt.Errorf("value of the rule has no boolean allowed: %w", errdefs.ErrInternal)
	}
	if !allowed {
		return false, nil
	}
	switch ops := field(v, "ops").(type) {
	case nil, ast.Null:
		return true, nil
	case *ast.Array:
		next, err := p.state.patch(ops)
		if err != nil {
			return false, fmt.Errorf("change the state: %w", err)
		}
		p.state = next
		return true, nil
	}
	return false, fmt.Errorf("ops of the rule is not a list: %w", errdefs.ErrInternal)
}

// declaresLenient evaluates the debugging switch. Whatever goes wrong means no.
func (p *rules) declaresLenient(ctx context.Context) bool {
	value, _, err := p.eval(ctx, lenientRule, ast.ObjectTerm())
	return err == nil && value == ast.Boolean(true)
}

// eval returns the value of one rule, nil when it has none, and what was
// printed on the way.
func (p *rules) eval(ctx context.Context, name string, input *ast.Term) (value ast.Value, prints string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("evaluator failed: %w", errdefs.ErrInternal)
		}
	}()
	stop := topdown.NewCancel()
	defer context.AfterFunc(ctx, stop.Cancel)()
	out := &printer{}
	query := topdown.NewQuery(p.query(name)).
		WithCompiler(p.compiler).WithStore(p.state).WithTransaction(txn{}).
		WithInput(input).WithCancel(stop).WithPrintHook(out)
	err = query.Iter(ctx, func(r topdown.QueryResult) error {
		value = r[resultVar].Value
		return nil
	})
	if ctx.Err() != nil && topdown.IsCancel(err) {
		return nil, "", ctx.Err()
	}
	if te := (*topdown.Error)(nil); errors.As(err, &te) {
		return nil, "", fmt.Errorf("%s: %w", te.Code, errdefs.ErrInternal)
	}
	return value, out.String(), err
}

func field(o ast.Object, name string) ast.Value {
	if t := o.Get(ast.StringTerm(name)); t != nil {
		return t.Value
	}
	return nil
}

// isName accepts what the name of a message looks like.
func isName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= maxEndpoint
}
