package sandbox

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/agent/container"
	"github.com/coffer-cc/coffer/agent/devices"
)

// phase is where an entry is in its life. Illegal moves are not possible: only
// Create moves from creating, and whoever moves to removing does the removal.
type phase int

const (
	creating phase = iota // Create works on it
	created               // c is set and usable
	removing              // a removal works on it
)

// entry is one container in the registry. The fields below the line are guarded
// by Sandbox.mu.
type entry struct {
	id      string
	seq     int
	cancel  context.CancelCauseFunc // cuts Create short
	settled chan struct{}           // closed when Create has ended, either way

	phase    phase
	c        *container.Container // set when created
	bound    bool                 // the root is a bind mount of ours, which no storage will release
	image    Image
	name     string
	pci      devices.Addresses // of its PCI functions, for the environment of what runs in it
	infra    bool              // the pod's own container, as opposed to one alone in its sandbox
	reported bool              // its memory kill was reported
	removal  *removal          // set when removing
}

// errRemoved is the cause when Create is cut short.
var errRemoved = fmt.Errorf("it was removed meanwhile: %w", errdefs.ErrAborted)

// noContainer is the answer to an unknown id. The shim matches the words; class
// decides the code, which differs between calls.
func noContainer(id string, class error) error {
	return fmt.Errorf("Invalid container id %.128q: %w", id, class) // the shim matches this spelling
}

// checkID accepts what may be a path component and an owner of storages.
func checkID(id string) error {
	ok := len(id) >= 2 && len(id) <= 128 && isAlnum(id[0])
	for i := 0; ok && i < len(id); i++ {
		ok = isAlnum(id[i]) || id[i] == '_' || id[i] == '.' || id[i] == '-'
	}
	if !ok {
		return fmt.Errorf("container_id %.128q: %w", id, errdefs.ErrInvalidArgument)
	}
	return nil
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// reserve enters the id as being created. The returned context ends with ctx or
// when the container is removed meanwhile.
func (s *Sandbox) reserve(ctx context.Context, id string) (context.Context, *entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usableLocked(); err != nil {
		return nil, nil, err
	}
	if id == "shared" || id == "sandbox" || slices.Contains(s.deps.Reserved, id) {
		// Its bundle would be a directory that others use, and would be removed.
		return nil, nil, fmt.Errorf("container_id %q is reserved: %w", id, errdefs.ErrInvalidArgument)
	}
	if e, taken := s.entries[id]; taken {
		state := map[phase]string{creating: "being created", created: "there", removing: "being removed"}[e.phase]
		return nil, nil, fmt.Errorf("container %s is already %s: %w", id, state, errdefs.ErrAlreadyExists)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s.seq++
	e := &entry{id: id, seq: s.seq, cancel: cancel, settled: make(chan struct{})}
	if s.pidFrom == nil && len(s.entries) == 0 {
		s.pidFrom = e
	}
	s.entries[id] = e
	return ctx, e, nil
}

// known tells whether the id is taken, by whatever state of a container.
func (s *Sandbox) known(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.entries[id]
	return ok
}

// forget takes the entry out.
func (s *Sandbox) forget(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.entries, e.id)
	if s.pidFrom == e {
		s.pidFrom = nil
	}
	s.changedLocked()
}

func (s *Sandbox) changedLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Container finds a container that is ready for calls. Others, unknown ones
// and those still being created, are ErrInvalidArgument, which is what the shims
// expect of every call but Remove.
func (s *Sandbox) Container(id string) (*container.Container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[id]
	if !ok || e.c == nil {
		return nil, noContainer(id, errdefs.ErrInvalidArgument)
	}
	return e.c, nil
}

// Process finds a process; the empty execID and the container's id mean its
// init. An unknown container is ErrInvalidArgument, an unknown exec ErrNotFound.
func (s *Sandbox) Process(cid, execID string) (*container.Process, error) {
	c, err := s.Container(cid)
	if err != nil {
		return nil, err
	}
	return c.Process(execID)
}

// Exec runs a program in a container that is ready for calls; see
// container.Container.Exec.
func (s *Sandbox) Exec(ctx context.Context, cid, execID string, p *specs.Process) error {
	c, err := s.Container(cid)
	if err != nil {
		return err
	}
	if p != nil {
		s.mu.Lock()
		pci := devices.Addresses(nil)
		if e := s.entries[cid]; e != nil {
			pci = e.pci
		}
		s.mu.Unlock()
		p.Env = pci.Translate(p.Env)
	}
	return c.Exec(ctx, execID, p)
}

// ContainerInfo is one line of a listing.
type ContainerInfo struct {
	ID    string
	Name  string // Kubernetes' name for it; may be empty
	State container.State
	Pid   int // of its init
	Image Image
}

// Image says which image a container runs, as far as the guest itself pulled
// and verified it. Empty otherwise.
type Image struct {
	Reference string
	Digest    string // of the manifest
}

// List describes the containers in the order of their creation.
func (s *Sandbox) List() []ContainerInfo {
	s.mu.Lock()
	var entries []entry
	for _, e := range s.entries {
		if e.c != nil {
			entries = append(entries, *e)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(entries, func(a, b entry) int { return a.seq - b.seq })
	infos := make([]ContainerInfo, 0, len(entries))
	for _, e := range entries {
		infos = append(infos, ContainerInfo{ID: e.id, Name: e.name, State: e.c.State(), Pid: e.c.InitPid(), Image: e.image})
	}
	return infos
}
