package policy

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// The document that rules read as data.pstate. It grows with each container
// that the policy lets in, never with calls it refuses.
const (
	stateKey  = "pstate"
	maxState  = 1 << 20 // bytes of its text
	maxOps    = 1024
	patchRule = "json.patch"
)

// state is one version of the data document. It never changes; patch returns
// the next version.
type state struct {
	storage.WritesNotSupported
	storage.PolicyNotSupported
	storage.TriggersNotSupported
	data ast.Object // {"pstate": {…}}
}

func newState() *state {
	return &state{data: ast.NewObject([2]*ast.Term{ast.StringTerm(stateKey), ast.ObjectTerm()})}
}

// patch applies RFC 6902 operations, all or none. Their paths begin at the
// whole document, but only what lies at or below /pstate may be named: the
// rest of the document is the policy.
func (s *state) patch(ops *ast.Array) (*state, error) {
	if ops.Len() > maxOps {
		return nil, fmt.Errorf("more than %d operations: %w", maxOps, errdefs.ErrInternal)
	}
	for i := range ops.Len() {
		if err := checkOp(ops.Elem(i)); err != nil {
			return nil, fmt.Errorf("operation %d: %w", i, err)
		}
	}
	plain, err := plainJSON(ops)
	if err != nil {
		return nil, fmt.Errorf("operations are not JSON: %w", errdefs.ErrInternal)
	}
	var next *ast.Term
	operands := []*ast.Term{ast.NewTerm(s.data), ast.NewTerm(plain)}
	err = topdown.GetBuiltin(patchRule)(topdown.BuiltinContext{}, operands, func(t *ast.Term) error {
		next = t
		return nil
	})
	if err != nil || next == nil {
		return nil, fmt.Errorf("an operation does not apply: %w", errdefs.ErrInternal)
	}
	return checkState(next)
}

func checkState(t *ast.Term) (*state, error) {
	data, ok := t.Value.(ast.Object)
	if !ok {
		return nil, fmt.Errorf("data is no longer an object: %w", errdefs.ErrInternal)
	}
	if _, ok := field(data, stateKey).(ast.Object); !ok {
		return nil, fmt.Errorf("%s is no longer an object: %w", stateKey, errdefs.ErrInternal)
	}
	if len(data.String()) > maxState {
		return nil, fmt.Errorf("state exceeds %d bytes: %w", maxState, errdefs.ErrInternal)
	}
	return &state{data: data}, nil
}

// checkOp looks at the fields that tell where an operation reads and writes.
func checkOp(t *ast.Term) error {
	op, ok := t.Value.(ast.Object)
	if !ok {
		return fmt.Errorf("not an object: %w", errdefs.ErrInternal)
	}
	if !below(field(op, "path")) {
		return fmt.Errorf("path is not below /%s: %w", stateKey, errdefs.ErrInternal)
	}
	if from := field(op, "from"); from != nil && !below(from) {
		return fmt.Errorf("from is not below /%s: %w", stateKey, errdefs.ErrInternal)
	}
	return nil
}

func below(v ast.Value) bool {
	s, ok := v.(ast.String)
	return ok && (string(s) == "/"+stateKey || strings.HasPrefix(string(s), "/"+stateKey+"/"))
}

// plainJSON turns what Rego knows beyond JSON, sets for instance, into JSON.
func plainJSON(v ast.Value) (ast.Value, error) {
	x, err := ast.JSON(v)
	if err != nil {
		return nil, err
	}
	return ast.InterfaceToValue(x)
}

// Read is how the evaluator reaches the document.
func (s *state) Read(_ context.Context, _ storage.Transaction, path storage.Path) (any, error) {
	var v ast.Value = s.data
	for _, name := range path {
		o, ok := v.(ast.Object)
		if !ok {
			return nil, &storage.Error{Code: storage.NotFoundErr}
		}
		if v = field(o, name); v == nil {
			return nil, &storage.Error{Code: storage.NotFoundErr}
		}
	}
	return v, nil
}

// txn stands for the one version that a state is.
type txn struct{}

func (txn) ID() uint64 { return 0 }

// NewTransaction completes storage.Store; a state has nothing to isolate.
func (s *state) NewTransaction(context.Context, ...storage.TransactionParams) (storage.Transaction, error) {
	return txn{}, nil
}

// Commit completes storage.Store.
func (s *state) Commit(context.Context, storage.Transaction) error { return nil }

// Abort completes storage.Store.
func (s *state) Abort(context.Context, storage.Transaction) {}

// Truncate completes storage.Store and refuses, as other writes do.
func (s *state) Truncate(context.Context, storage.Transaction, storage.TransactionParams, storage.Iterator) error {
	return &storage.Error{Code: storage.WritesNotSupportedErr}
}
