package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// memory is what a process holds, in MB of 1 000 000 bytes.
type memory struct {
	anonymous, pss, rss float64
}

func memoryOf(pid int) (memory, error) {
	f, err := fields(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	return memory{anonymous: f["Anonymous"], pss: f["Pss"], rss: f["Rss"]}, err
}

// peakOf is the most memory that a process had at once.
func peakOf(pid int) (float64, error) {
	f, err := fields(fmt.Sprintf("/proc/%d/status", pid))
	return f["VmHWM"], err
}

// fields reads the lines "Name:  number kB".
func fields(file string) (map[string]float64, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]float64{}
	for in := bufio.NewScanner(f); in.Scan(); {
		name, rest, _ := strings.Cut(in.Text(), ":")
		if words := strings.Fields(rest); len(words) == 2 && words[1] == "kB" {
			kb, _ := strconv.ParseFloat(words[0], 64)
			out[name] = kb * 1024 / 1e6
		}
	}
	return out, nil
}

// spentBy is the processor time of a process so far, with that of the children
// that it has waited for.
func spentBy(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name may hold anything; behind its bracket the third field begins.
	_, rest, _ := strings.Cut(string(text), ") ")
	words := strings.Fields(rest)
	if len(words) < 15 {
		return 0, fmt.Errorf("/proc/%d/stat is short", pid)
	}
	ticks := 0
	for _, w := range words[11:15] { // user, system, and both of children
		n, err := strconv.Atoi(w)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	const tick = time.Second / 100 // USER_HZ
	return time.Duration(ticks) * tick, nil
}
