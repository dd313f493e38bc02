package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/cgroups"
)

const cpusFile = "cpuset.cpus"

// RefreshCPUs implements CPURefresher. Version 2 keeps what was asked for apart
// from what is there, and the ancestors of a container ask for nothing: once
// more for the container itself is enough. Version 1 knows one set, which must
// lie within the parent's, and gave each group what was there at its creation.
func (j *jail) RefreshCPUs(cpus string) error {
	if !cgroups.IsCgroup2UnifiedMode() {
		return refreshTree(j.paths["cpuset"], cpus)
	}
	if cpus == "" {
		return nil
	}
	return writeCPUs(j.paths[""], cpus)
}

// refreshTree gives all processors of the hierarchy's root to the groups on the
// way to dir, from above, and then dir its own.
func refreshTree(dir, own string) error {
	if dir == "" {
		return nil
	}
	way := []string{dir}
	for hasCPUs(filepath.Dir(way[len(way)-1])) {
		way = append(way, filepath.Dir(way[len(way)-1]))
	}
	root := way[len(way)-1]
	all, err := os.ReadFile(filepath.Join(root, cpusFile))
	if err != nil {
		return ignoreGone(fmt.Errorf("read processors: %w", err))
	}
	for _, group := range slices.Backward(way[1 : len(way)-1]) {
		if err := writeCPUs(group, string(all)); err != nil {
			return err
		}
	}
	if own == "" {
		own = string(all)
	}
	return writeCPUs(dir, own)
}

func hasCPUs(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, cpusFile))
	return err == nil
}

// writeCPUs takes a group that is gone for one that needs nothing.
func writeCPUs(group, cpus string) error {
	f, err := os.OpenFile(filepath.Join(group, cpusFile), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return ignoreGone(fmt.Errorf("open processors: %w", err))
	}
	_, err = f.WriteString(cpus)
	if err = errors.Join(err, f.Close()); err != nil {
		return ignoreGone(fmt.Errorf("write processors of %s: %w", group, err))
	}
	return nil
}
