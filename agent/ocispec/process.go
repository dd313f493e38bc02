package ocispec

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	// user looks names up in files of the container, as container engines do.
	"github.com/moby/sys/user"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// maxAccounts bounds what is read of an image's passwd or group file.
const maxAccounts = 4 << 20

// maxAccount is the largest number of a user or group that has a name.
const maxAccount = 1<<31 - 1

// SetRoot makes path the container's root file system. Whether it is read only
// stays as the host said.
func SetRoot(spec *specs.Spec, path string) {
	spec.Root = &specs.Root{Path: path, Readonly: spec.Root.Readonly}
}

// UsePause makes the container run p, the program of the guest's own pause
// bundle, in place of what the host named. p is not changed.
func UsePause(spec *specs.Spec, p *specs.Process) {
	pause := *p
	pause.Terminal = false
	spec.Process = &pause
}

// IsSandbox reports whether the container is the one that holds the pod's
// namespaces, by the annotations of containerd and CRI-O.
func IsSandbox(spec *specs.Spec) bool {
	return spec.Annotations["io.kubernetes.cri.container-type"] == "sandbox" ||
		spec.Annotations["io.kubernetes.cri-o.ContainerType"] == "sandbox"
}

// HasHooks reports whether any program of the host is to run around the
// container's life. Shims send an empty list of hooks for none.
func HasHooks(spec *specs.Spec) bool {
	h := spec.Hooks
	return h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer)+
		len(h.StartContainer)+len(h.Poststart)+len(h.Poststop) > 0
}

// Name is what the pod calls the container, or empty.
func Name(spec *specs.Spec) string {
	if name := spec.Annotations["io.kubernetes.cri.container-name"]; name != "" {
		return name
	}
	return spec.Annotations["io.kubernetes.cri-o.ContainerName"]
}

// ApplyImage completes a process without arguments from the image's
// configuration: arguments, environment, directory, and the user as a name in
// Process.User.Username, to be resolved with ResolveUser once the root file
// system is there. A process with arguments was completed by the host, whose
// word is checked by policy, and stays as it is; the result tells which.
func ApplyImage(spec *specs.Spec, image v1.ImageConfig) (applied bool) {
	p := spec.Process
	if len(p.Args) > 0 {
		return false
	}
	p.Args = slices.Concat(image.Entrypoint, image.Cmd)
	p.Env = MergeEnv(image.Env, p.Env)
	if p.Cwd == "" || p.Cwd == "/" && image.WorkingDir != "" {
		p.Cwd = image.WorkingDir
	}
	if p.User.UID == 0 && p.User.GID == 0 && p.User.Username == "" {
		p.User.Username = image.User
	}
	return true
}

// MergeEnv returns base with over put on top: an entry replaces the one of the
// same name in its place, new ones come last in their order.
func MergeEnv(base, over []string) []string {
	out := slices.Clone(base)
	for _, entry := range over {
		name := envName(entry)
		at := slices.IndexFunc(out, func(e string) bool { return envName(e) == name })
		if at < 0 {
			out = append(out, entry)
		} else {
			out[at] = entry
		}
	}
	return out
}

func envName(entry string) string {
	name, _, _ := strings.Cut(entry, "=")
	return name
}

// MountAt returns the last mount of the spec on the destination, which is the
// one that the container sees, or nil.
func MountAt(spec *specs.Spec, destination string) *specs.Mount {
	for i := len(spec.Mounts) - 1; i >= 0; i-- {
		if spec.Mounts[i].Destination == destination {
			return &spec.Mounts[i]
		}
	}
	return nil
}

// ResolveUser turns what an image calls its user, "name", "uid", "name:group"
// or "uid:gid", into numbers. passwd and group are the files of the container's
// root file system; nil stands for a file that does not exist. A name that is
// in neither is an error, a number need not be. So is a file of more than 4 MiB.
func ResolveUser(name string, passwd, group io.Reader) (specs.User, error) {
	if passwd != nil {
		passwd = &bounded{passwd, maxAccounts}
	}
	if group != nil {
		group = &bounded{group, maxAccounts}
	}
	found, err := user.GetExecUser(name, nil, passwd, group)
	if err != nil {
		return specs.User{}, fmt.Errorf("resolve user: %w: %w", errdefs.ErrInvalidArgument, err)
	}
	// Numbers that stand in the files have not been looked at.
	for _, id := range append([]int{found.Uid, found.Gid}, found.Sgids...) {
		if id < 0 || id > maxAccount {
			return specs.User{}, fmt.Errorf("resolve user: number %d is out of range: %w", id, errdefs.ErrInvalidArgument)
		}
	}
	out := specs.User{UID: uint32(found.Uid), GID: uint32(found.Gid)}
	for _, gid := range found.Sgids {
		out.AdditionalGids = append(out.AdditionalGids, uint32(gid))
	}
	return out, nil
}

// bounded refuses what is too long. Cutting it off would leave half a line at
// the end, with another number than the whole one.
type bounded struct {
	r    io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, fmt.Errorf("file of accounts is larger than %d bytes: %w", maxAccounts, errdefs.ErrInvalidArgument)
	}
	return n, err
}
