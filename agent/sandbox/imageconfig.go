package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/coffer-cc/coffer/mount/storage"
)

// maxUserFile bounds what is read of a user database.
const maxUserFile = 1 << 20

// applyImage completes a process that has no arguments from the verified image.
// What the request does say takes precedence, by variable in the environment.
func applyImage(p *specs.Process, img storage.Image) error {
	c := img.Config.Config
	p.Args = slices.Concat(c.Entrypoint, c.Cmd)
	p.Env = mergeEnv(c.Env, p.Env)
	if p.Cwd == "" {
		p.Cwd = c.WorkingDir
	}
	if c.User == "" || p.User.UID != 0 || p.User.GID != 0 {
		return nil
	}
	u, err := lookUp(c.User, img.Rootfs)
	if err != nil {
		return fmt.Errorf("user of the image: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	p.User.UID, p.User.GID = uint32(u.Uid), uint32(u.Gid)
	for _, gid := range u.Sgids {
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(gid))
	}
	return nil
}

func mergeEnv(image, asked []string) []string {
	name := func(kv string) string { n, _, _ := strings.Cut(kv, "="); return n }
	kept := slices.DeleteFunc(slices.Clone(image), func(kv string) bool {
		return slices.ContainsFunc(asked, func(a string) bool { return name(a) == name(kv) })
	})
	return append(kept, asked...)
}

// lookUp resolves "user", "uid:gid" and the like in the databases of the image.
// Their files are opened inside of its root file system, whatever links it has.
func lookUp(spec, rootfs string) (*user.ExecUser, error) {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	passwd, err := open(root, "etc/passwd")
	if err != nil {
		return nil, err
	}
	defer passwd.Close()
	group, err := open(root, "etc/group")
	if err != nil {
		return nil, err
	}
	defer group.Close()
	return user.GetExecUser(spec, nil, io.LimitReader(passwd, maxUserFile), io.LimitReader(group, maxUserFile))
}

// open opens a regular file; one that is missing reads as empty.
func open(root *os.Root, name string) (io.ReadCloser, error) {
	st, err := root.Stat(name)
	if errors.Is(err, os.ErrNotExist) {
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", name)
	}
	return root.Open(name)
}
