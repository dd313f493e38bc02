package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// agentCgroup is where the agent itself lives under cgroup v2: limits and
// protection are properties of cgroups below the root only.
const agentCgroup = cgroupRoot + "/coffer"

// agentMemory is what the kernel does not reclaim from the agent while workloads
// press: its program and a heap at rest, of which it needs about 22 MiB.
const agentMemory = 32 << 20

// Budgets of the file systems in memory that the guest mounts for itself. An
// image that is unpacked in memory lies below /run, so it may take half of what
// there is, which is the kernel's default too; nothing of ours needs /dev/shm,
// because a pod has its own.
const (
	runBudget = "size=50%"
	shmBudget = "size=5%"
)

// agentMemoryFloor puts the agent into a cgroup of its own with a floor under
// its memory, so that workloads which use up everything cannot make it crawl.
// With cgroup v1, or without the memory controller, the kernel has no such floor.
func (b bootstrap) agentMemoryFloor(ctx context.Context) error {
	var st unix.Statfs_t
	if err := unix.Statfs(b.path(cgroupRoot), &st); err != nil {
		return fmt.Errorf("look at cgroups: %w", err)
	}
	if st.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil
	}
	there, err := os.ReadFile(b.path(cgroupRoot + "/cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read controllers: %w", err)
	}
	if !slices.Contains(strings.Fields(string(there)), "memory") {
		slog.WarnContext(ctx, "kernel has no memory controller, the agent's memory has no floor")
		return nil
	}
	return b.ownCgroup()
}

func (b bootstrap) ownCgroup() error {
	if err := os.Mkdir(b.path(agentCgroup), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the agent's cgroup: %w", err)
	}
	for _, w := range []struct{ file, text string }{
		{cgroupRoot + "/cgroup.subtree_control", "+memory"},
		{agentCgroup + "/memory.min", strconv.Itoa(agentMemory)},
		{agentCgroup + "/cgroup.procs", strconv.Itoa(os.Getpid())},
	} {
		if err := writeKnob(b.path(w.file), w.text); err != nil {
			return fmt.Errorf("protect the agent's memory: %w", err)
		}
	}
	return nil
}

// writeKnob writes to a file of the kernel, which is there or not.
func writeKnob(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
