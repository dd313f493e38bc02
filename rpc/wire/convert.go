package wire

import (
	"maps"
	"strconv"
)

// mapSlice converts a list element by element; an empty list becomes nil, as
// the wire cannot tell the two apart.
func mapSlice[F, T any](in []F, f func(F) T) []T {
	if len(in) == 0 {
		return nil
	}
	out := make([]T, len(in))
	for i, v := range in {
		out[i] = f(v)
	}
	return out
}

// tryMapSlice is mapSlice for conversions that can fail; f receives the path of
// its element.
func tryMapSlice[F, T any](path string, in []F, f func(string, F) (T, error)) ([]T, error) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make([]T, len(in))
	for i, v := range in {
		var err error
		if out[i], err = f(at(path, i), v); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func copyMap(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(m)
}

func ptr[T any](v T) *T { return &v }

// set returns nil for zero, which on the wire means "not set".
func set[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// get is the reverse of set.
func get[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}

func at(path string, i int) string {
	return path + "[" + strconv.Itoa(i) + "]"
}
