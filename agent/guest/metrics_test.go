package guest

import (
	"context"
	"strings"
	"testing"
)

func TestExposition(t *testing.T) {
	e := &Exposition{}
	e.Gauge("unused", "Nothing.")
	e.Gauge("g", "Two\nlines \\")
	e.Sample(1.5)
	e.Sample(3e9, "path", "a\"b\\c\nd\xff", "item", "x")
	e.Counter("c", "Count")
	e.Sample(7)
	want := "# HELP g Two\\nlines \\\\\n# TYPE g gauge\ng 1.5\n" +
		`g{path="a\"b\\c\nd` + "\uFFFD" + `",item="x"} 3e+09` + "\n" +
		"# HELP c Count\n# TYPE c counter\nc 7\n"
	if got := e.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestMetrics(t *testing.T) {
	m := fakeMachine(t, map[string]string{
		"proc/self/stat": "7 (co) ffer) S 1 1 1 0 -1 4194560 0 0 0 0 120 30 5 6 20 0 9 0 100 73400320 2048 18446744073709551615\n",
		"proc/self/io":   "rchar: 100\nwrite_bytes: 4096\n",
		"proc/self/status": "Name:\tcoffer\nVmRSS:\t    8192 kB\nThreads:\t9\n" +
			"voluntary_ctxt_switches:\t3\nHugetlbPages:\t0 kB\n",
		"proc/self/mountinfo": "1 0 0:1 / / rw - ext4 /dev/root rw\n2 1 0:1 / /b rw - ext4 /dev/root rw\n3 1 0:3 / /nowhere\\040x rw - ext4 d rw\n4 1 0:4 / /ro rw - ext4 d ro\nnonsense\n",
		"proc/loadavg":        "0.50 0.25 0.10 2/80 999\n",
		"proc/stat":           "cpu  10 20 30\ncpu0 1 2 3\nintr 5\n",
		"proc/vmstat":         "nr_free_pages 42\n",
		"proc/net/dev":        "Inter-|   Receive\n face |bytes\n  eth0: 1 2 0 0 0 0 0 0 9 8 0 0 0 0 0 0\n",
		"proc/diskstats":      "254 0 vda 10 0 80 5 1 0 8 1 0 6 6\n",
		"proc/meminfo":        "MemTotal:  1024 kB\nHugePages_Total: 3\nUnknown: 7 kB\n",
	})
	page := (&Metrics{Machine: m, Extra: []func(context.Context, *Exposition){
		func(_ context.Context, e *Exposition) { e.Gauge("coffer_x", "X"); e.Sample(1) },
	}}).Page(t.Context())
	for _, want := range []string{
		"kata_agent_scrape_count 1\n",
		"kata_agent_threads 9\n",
		"kata_agent_total_time 1.5\n",
		"kata_agent_total_vm 7.340032e+07\n",
		`kata_agent_proc_stat{item="cstime"} 6` + "\n",
		`kata_agent_io_stat{item="write_bytes"} 4096` + "\n",
		`kata_agent_proc_status{item="vmrss"} 8192` + "\n",
		`kata_agent_proc_status{item="voluntary_ctxt_switches"} 3` + "\n",
		`kata_guest_load{item="load5"} 0.25` + "\n",
		`kata_guest_tasks{item="max"} 80` + "\n",
		`kata_guest_cpu_time{cpu="total",item="nice"} 20` + "\n",
		`kata_guest_cpu_time{cpu="0",item="system"} 3` + "\n",
		`kata_guest_vm_stat{item="nr_free_pages"} 42` + "\n",
		`kata_guest_netdev_stat{interface="eth0",item="sent_packets"} 8` + "\n",
		`kata_guest_diskstat{disk="vda",item="sectors_read"} 80` + "\n",
		`kata_guest_meminfo{item="mem_total"} 1.048576e+06` + "\n",
		`kata_guest_meminfo{item="hugepages_total"} 3` + "\n",
		`kata_guest_filesystem_bytes{mount="/",device="root",item="total"} `,
		"# TYPE kata_guest_filesystem_inodes gauge\n",
		"coffer_x 1\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("missing %q", want)
		}
	}
	for _, unwanted := range []string{"Unknown", `mount="/b"`, "nowhere", `mount="/ro"`, "intr", "threads\""} {
		if strings.Contains(page, unwanted) {
			t.Errorf("%q should not be there", unwanted)
		}
	}
	if t.Failed() {
		t.Log(page)
	}
}

// An empty /proc still gives a page, and the real one gives all families.
func TestMetricsPages(t *testing.T) {
	if page := (&Metrics{Machine: fakeMachine(t, nil)}).Page(t.Context()); strings.Count(page, "# TYPE") != 1 {
		t.Errorf("got\n%s", page)
	}
	page := (&Metrics{Machine: New()}).Page(t.Context())
	if n := strings.Count(page, "# TYPE"); n < 15 {
		t.Errorf("only %d families in\n%s", n, page)
	}
	if strings.Contains(page, "NaN") {
		t.Error("a value is not a number")
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add(`36 35 98:0 /root /mo\040unt rw - ext4 /dev/vda rw`)
	f.Add(` - \777 \`)
	f.Fuzz(func(_ *testing.T, line string) {
		parseMountinfo(line)
		keyValue(line)
	})
}
