package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// call is one line of a recorded life.
type call struct {
	Sandbox string
	Seq     int
	Service string
	Method  string
	Start   float64 `json:"start_s"`
	End     float64 `json:"end_s"` // -1: never answered
	Timeout float64 `json:"timeout_s"`
	Request []byte  `json:"request_b64"`

	request proto.Message
	reply   protoreflect.MessageType
}

// life is what one sandbox went through.
type life struct {
	file, sandbox string
	calls         []*call
}

func (l *life) name() string {
	return strings.TrimSuffix(l.file, ".jsonl") + "/" + l.sandbox[:min(8, len(l.sandbox))]
}

// readLives returns all recordings, in order of files and of lines.
func readLives(t *testing.T) []*life {
	t.Helper()
	files, err := filepath.Glob("testdata/lives/*.jsonl")
	if err != nil || len(files) == 0 {
		t.Fatal("no recordings", err)
	}
	var out []*life
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			c := parseCall(t, lines.Bytes())
			if c.Seq == 1 {
				out = append(out, &life{file: filepath.Base(file), sandbox: c.Sandbox})
			}
			l := out[len(out)-1]
			l.calls = append(l.calls, c)
		}
	}
	return out
}

// parseCall checks that decoding loses nothing, so that what is sent is what
// the shim sent.
func parseCall(t *testing.T, line []byte) *call {
	t.Helper()
	c := &call{}
	if err := json.Unmarshal(line, c); err != nil {
		t.Fatal(err)
	}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(c.Service))
	if err != nil {
		t.Fatal(err)
	}
	m := d.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(c.Method))
	in, err := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
	if err != nil {
		t.Fatal(err)
	}
	if c.reply, err = protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName()); err != nil {
		t.Fatal(err)
	}
	c.request = in.New().Interface()
	if err := proto.Unmarshal(c.Request, c.request); err != nil {
		t.Fatal(err)
	}
	if n := proto.Size(c.request); n != len(c.Request) {
		t.Errorf("%s: %d bytes of %s", c.Method, n, base64.StdEncoding.EncodeToString(c.Request))
	}
	return c
}

// processKey names a process of a life.
type processKey struct{ container, exec string }

func keyOf(m proto.Message) processKey {
	r, ok := m.(interface{ GetContainerId() string })
	if !ok {
		return processKey{}
	}
	k := processKey{container: r.GetContainerId()}
	if e, ok := m.(interface{ GetExecId() string }); ok && e.GetExecId() != k.container {
		k.exec = e.GetExecId()
	}
	return k
}

// commands returns what each process of a life was asked to run.
func (l *life) commands() map[processKey]string {
	out := map[processKey]string{}
	for _, c := range l.calls {
		switch r := c.request.(type) {
		case *agentpb.CreateContainerRequest:
			out[processKey{container: r.GetContainerId()}] = strings.Join(r.GetOCI().GetProcess().GetArgs(), " ")
		case *agentpb.ExecProcessRequest:
			out[keyOf(r)] = strings.Join(r.GetProcess().GetArgs(), " ")
		}
	}
	return out
}
