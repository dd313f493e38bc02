package sandbox

import (
	"context"
	"fmt"
	"reflect"
	"slices"
)

// maxOOMs bounds the memory kills that wait for somebody to ask, of containers
// that are gone. Those of living containers need no queue: their own record is
// one.
const maxOOMs = 64

// NextOOM waits for a container in which the kernel killed a process for lack
// of memory, and returns its id. Each container is reported once, to one
// caller. The pod's own container is not reported, one without a pod is, although
// it has the id of its sandbox. It returns an error only
// when ctx ends, also when the sandbox is destroyed meanwhile: the shim asks
// again at once after an error, so an answer at shutdown would make it spin.
func (s *Sandbox) NextOOM(ctx context.Context) (string, error) {
	for {
		id, changed, watched := s.takeOOM()
		if id != "" {
			return id, nil
		}
		// One case per container: no goroutine has to run for this, and an
		// event cannot be lost between two calls.
		cases := []reflect.SelectCase{recv(ctx.Done()), recv(changed)}
		for _, e := range watched {
			cases = append(cases, recv(e.c.OOM()))
		}
		if i, _, _ := reflect.Select(cases); i == 0 {
			return "", fmt.Errorf("wait for memory kill: %w", ctx.Err())
		}
	}
}

func recv(c <-chan struct{}) reflect.SelectCase {
	return reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(c)}
}

// takeOOM returns an id to report and marks it reported, or what to wait for.
func (s *Sandbox) takeOOM() (id string, changed <-chan struct{}, watched []*entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ooms) > 0 {
		id = s.ooms[0]
		s.ooms = slices.Delete(s.ooms, 0, 1)
		return id, nil, nil
	}
	for _, e := range s.entries {
		if e.c == nil || e.reported || e.infra {
			continue
		}
		if hasOOM(e) {
			e.reported = true
			return e.id, nil, nil
		}
		watched = append(watched, e)
	}
	return "", s.changed, watched
}

func hasOOM(e *entry) bool {
	select {
	case <-e.c.OOM():
		return true
	default:
		return false
	}
}

// keepOOM saves the memory kill of a container that is about to be forgotten.
func (s *Sandbox) keepOOM(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.reported || e.infra || !hasOOM(e) || len(s.ooms) == maxOOMs {
		return
	}
	e.reported = true
	s.ooms = append(s.ooms, e.id)
}
