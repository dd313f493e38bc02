// Command libcontainertest runs containers with libcontainer and nothing else:
// what the agent's containers cost beyond this is the agent's own. It reads one
// command a line and answers each with a line of nanoseconds, or with "error"
// and a reason.
//
//	life ID   create, start, wait, destroy       create+start, the whole life
//	run ID    create and start                   that
//	exec ID   /bin/true in a running container   start to exit
//	kill ID   kill, wait, destroy                that
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	_ "github.com/opencontainers/cgroups/devices" // device rules, as the agent has them
	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter"
	"github.com/opencontainers/runc/libcontainer/specconv"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func init() {
	runtime.LockOSThread()
	if len(os.Args) > 1 && os.Args[1] == "init" {
		libcontainer.Init() // never returns
	}
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: libcontainertest CONFIG.json STATE")
		os.Exit(2)
	}
	w := &worker{state: os.Args[2], running: map[string]*box{}}
	if err := w.readSpec(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "libcontainertest:", err)
		os.Exit(1)
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		what, id, _ := strings.Cut(in.Text(), " ")
		took, err := w.do(what, id)
		if err != nil {
			fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Println(strings.Trim(fmt.Sprint(took), "[]"))
	}
}

// worker holds what the commands share.
type worker struct {
	spec    specs.Spec
	state   string
	running map[string]*box
}

// box is a container that was started.
type box struct {
	*libcontainer.Container
	init *libcontainer.Process
}

func (w *worker) readSpec(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, &w.spec)
}

// do returns the times since the command came.
func (w *worker) do(what, id string) (took []int64, err error) {
	began := time.Now()
	mark := func() { took = append(took, time.Since(began).Nanoseconds()) }
	switch what {
	case "life":
		b, err := w.start(id, "true")
		if err != nil {
			return nil, err
		}
		mark()
		err = b.end()
		mark()
		return took, err
	case "run":
		b, err := w.start(id, "sleep", "100000")
		mark()
		w.running[id] = b
		return took, err
	case "exec":
		p := w.process(false, "true")
		if err := w.running[id].Run(p); err != nil {
			return nil, err
		}
		_, err := p.Wait()
		mark()
		return took, err
	case "kill":
		b := w.running[id]
		delete(w.running, id)
		err := b.Signal(unix.SIGKILL)
		if err == nil {
			err = b.end()
		}
		mark()
		return took, err
	}
	return nil, fmt.Errorf("unknown command %q", what)
}

func (w *worker) process(init bool, args ...string) *libcontainer.Process {
	return &libcontainer.Process{Init: init, Args: args, Cwd: "/", Env: w.spec.Process.Env}
}

// start creates a container and lets its init go.
func (w *worker) start(id string, args ...string) (*box, error) {
	spec := w.spec
	linux := *spec.Linux
	linux.CgroupsPath += "/" + id
	spec.Linux = &linux
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: id, Spec: &spec})
	if err != nil {
		return nil, err
	}
	c, err := libcontainer.Create(w.state, id, config)
	if err != nil {
		return nil, err
	}
	b := &box{c, w.process(true, args...)}
	if err := c.Start(b.init); err != nil {
		return nil, err
	}
	return b, c.Exec()
}

// end waits for init, however it ends, and leaves nothing.
func (b *box) end() error {
	if state, err := b.init.Wait(); state == nil {
		return err
	}
	return b.Destroy()
}
