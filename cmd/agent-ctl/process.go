package main

import (
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"
)

// processFlags describe a process the same way in run and exec.
type processFlags struct {
	stdin, tty bool
	env        []string
	cwd        string
	user       string
}

func (p *processFlags) define(f *pflag.FlagSet) {
	f.BoolVarP(&p.stdin, "interactive", "i", false, "pass stdin on")
	f.BoolVarP(&p.tty, "tty", "t", false, "give the process a terminal")
	f.StringArrayVarP(&p.env, "env", "e", nil, "set `NAME=VALUE`, repeatable")
	f.StringVarP(&p.cwd, "workdir", "w", "", "working `DIRECTORY`")
	f.StringVarP(&p.user, "user", "u", "", "run as `UID[:GID]`")
}

// process builds the process of a command. Without args it leaves everything
// unset that the guest fills in from the image.
func (p *processFlags) process(args []string) (*specs.Process, error) {
	out := &specs.Process{Terminal: p.tty, Args: args, Cwd: p.cwd}
	for _, e := range p.env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" {
			return nil, usagef("--env %q: must be NAME=VALUE", e)
		}
	}
	if len(args) > 0 {
		out.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
		if p.cwd == "" {
			out.Cwd = "/"
		}
	}
	if p.tty {
		out.Env = append(out.Env, "TERM=xterm")
	}
	out.Env = append(out.Env, p.env...)
	return out, p.setUser(&out.User)
}

func (p *processFlags) setUser(u *specs.User) error {
	if p.user == "" {
		return nil
	}
	uid, gid, both := strings.Cut(p.user, ":")
	n, err := strconv.ParseUint(uid, 10, 32)
	if err != nil {
		return usagef("--user %q: must be numbers, UID or UID:GID", p.user)
	}
	u.UID = uint32(n)
	if both {
		if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
			return usagef("--user %q: must be numbers, UID or UID:GID", p.user)
		}
		u.GID = uint32(n)
	}
	return nil
}

// newID makes a name for a container or process.
func newID() string {
	var b [6]byte
	rand.Read(b[:]) // never fails, says the package
	return "ctl-" + hex.EncodeToString(b[:])
}
