package guest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ticksPerSecond is USER_HZ, which is 100 on every architecture Linux runs on
// that the agent is built for (include/asm-generic/param.h).
const ticksPerSecond = 100

// Positions in /proc/PID/stat, counted from the state behind the command, which
// may itself hold spaces and parentheses (proc_pid_stat(5)).
const (
	statUtime = 11 + iota
	statStime
	statCutime
	statCstime
	_ // priority
	_ // nice
	statThreads
	_ // itrealvalue
	_ // starttime
	statVsize
	statRSS
)

// agentMetrics adds the families about this process.
func (m Machine) agentMetrics(e *Exposition) {
	if f := m.selfStat(); len(f) > statRSS {
		e.Gauge("kata_agent_threads", "Agent process threads")
		e.Sample(f[statThreads])
		e.Gauge("kata_agent_total_time", "Agent process total time")
		e.Sample((f[statUtime] + f[statStime]) / ticksPerSecond)
		e.Gauge("kata_agent_total_vm", "Agent process total VM size")
		e.Sample(f[statVsize])
		e.Gauge("kata_agent_total_rss", "Agent process total RSS size")
		e.Sample(f[statRSS] * float64(os.Getpagesize()))
		e.Gauge("kata_agent_proc_stat", "Agent process statistics.")
		e.Sample(f[statUtime], "item", "utime")
		e.Sample(f[statStime], "item", "stime")
		e.Sample(f[statCutime], "item", "cutime")
		e.Sample(f[statCstime], "item", "cstime")
	}
	e.Gauge("kata_agent_io_stat", "Agent process IO statistics.")
	for _, l := range m.lines("self/io") {
		if key, value, ok := keyValue(l); ok {
			e.Sample(value, "item", key)
		}
	}
	e.Gauge("kata_agent_proc_status", "Agent process status.")
	for _, l := range m.lines("self/status") {
		key, value, ok := keyValue(l)
		key = strings.ToLower(key)
		if ok && (strings.HasPrefix(key, "vm") || strings.HasPrefix(key, "rss") ||
			strings.HasSuffix(key, "_ctxt_switches") || key == "hugetlbpages") {
			e.Sample(value, "item", key)
		}
	}
}

// selfStat returns the numbers of /proc/self/stat behind the command; the state,
// which is a letter, reads 0.
func (m Machine) selfStat() []float64 {
	b, _ := os.ReadFile(filepath.Join(m.Proc, "self/stat"))
	text := string(b)
	return numbers(strings.Fields(text[strings.LastIndexByte(text, ')')+1:]))
}

// keyValue reads "Name:   123 kB" without its unit.
func keyValue(line string) (string, float64, bool) {
	key, rest, ok := strings.Cut(line, ":")
	f := strings.Fields(rest)
	if !ok || len(f) == 0 {
		return "", 0, false
	}
	v, err := strconv.ParseFloat(f[0], 64)
	return key, v, err == nil
}

// numbers reads what are numbers; anything else becomes 0, so that positions
// stay.
func numbers(fields []string) []float64 {
	out := make([]float64, len(fields))
	for i, f := range fields {
		out[i], _ = strconv.ParseFloat(f, 64)
	}
	return out
}
