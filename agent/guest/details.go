package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// Memory is what the host has to know before it plugs memory in.
type Memory struct {
	BlockSize uint64 // bytes; 0 when the kernel cannot plug memory
	Probe     bool   // whether addresses are to be announced by MemHotplugByProbe
}

// Memory reads the facts about hot-plugged memory.
func (m Machine) Memory() (Memory, error) {
	dir := filepath.Join(m.Sys, "devices/system/memory")
	var out Memory
	if _, err := os.Stat(filepath.Join(dir, "probe")); err == nil {
		out.Probe = true
	}
	text, err := readWord(filepath.Join(dir, "block_size_bytes"))
	if errors.Is(err, os.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return out, fmt.Errorf("read memory block size: %w", err)
	}
	out.BlockSize, err = strconv.ParseUint(text, 16, 64)
	if err != nil {
		return out, fmt.Errorf("read memory block size: %w", err)
	}
	return out, nil
}
