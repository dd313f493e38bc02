package container

import (
	"context"

	"github.com/opencontainers/runc/libcontainer/configs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ownHooks leaves libcontainer the hooks that only it can run, those between
// the making of the namespaces and the program. The later ones are Container's:
// libcontainer runs poststart before the start, and lets a poststop that fails
// fail the removal. The guest's prestart hooks join those of the spec.
//
// libcontainer warns of each function among the hooks that its child will not
// get it; package logging drops that line, since the child runs none of these.
func ownHooks(ctx context.Context, config *configs.Config, guest []specs.Hook) {
	delete(config.Hooks, configs.Poststart)
	delete(config.Hooks, configs.Poststop)
	for _, list := range config.Hooks {
		for _, h := range list {
			bound(h.(configs.CommandHook))
		}
	}
	if len(guest) == 0 {
		return
	}
	ctx = context.WithoutCancel(ctx) // they are bounded by their own time
	config.Hooks[configs.Prestart] = append(config.Hooks[configs.Prestart], configs.NewFunctionHook(
		func(state *specs.State) error {
			runGuestHooks(ctx, guest, state)
			return nil
		}))
}

// bound gives a hook of the spec an end and an environment of its own, where it
// would wait for ever and inherit the agent's.
func bound(h configs.CommandHook) {
	if h.Timeout == nil {
		limit := hookTime
		h.Timeout = &limit
	}
	if h.Env == nil {
		h.Env = []string{}
	}
}
