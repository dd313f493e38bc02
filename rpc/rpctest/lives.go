// Package rpctest replays recorded lives of pods: everything that a real shim
// asked an agent for, in the order and with the overlaps in which it did. Tests
// alone import it.
package rpctest

import (
	"bufio"
	"bytes"
	"embed"
	"encoding/base64"
	"encoding/json"
	"path"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

//go:embed testdata/lives/*.jsonl
var recordings embed.FS

// Call is one line of a recorded life. Whoever plays it may change the request
// before.
type Call struct {
	Sandbox string
	Seq     int
	Service string
	Method  string
	Start   float64 `json:"start_s"`
	End     float64 `json:"end_s"` // -1: never answered
	Timeout float64 `json:"timeout_s"`
	Raw     []byte  `json:"request_b64"`

	Request proto.Message `json:"-"`
	reply   protoreflect.MessageType
}

// Life is what one sandbox went through.
type Life struct {
	File, Sandbox string
	Calls         []*Call
}

// Name is short and unique.
func (l *Life) Name() string {
	return strings.TrimSuffix(l.File, ".jsonl") + "/" + l.Sandbox[:min(8, len(l.Sandbox))]
}

// Lives returns all recordings, in order of files and of lines.
func Lives(t testing.TB) []*Life {
	t.Helper()
	const dir = "testdata/lives"
	files, err := recordings.ReadDir(dir)
	if err != nil || len(files) == 0 {
		t.Fatal("no recordings", err)
	}
	var out []*Life
	for _, file := range files {
		text, err := recordings.ReadFile(path.Join(dir, file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(text))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			c := parseCall(t, lines.Bytes())
			if c.Seq == 1 {
				out = append(out, &Life{File: file.Name(), Sandbox: c.Sandbox})
			}
			l := out[len(out)-1]
			l.Calls = append(l.Calls, c)
		}
	}
	return out
}

// parseCall checks that decoding loses nothing, so that what is sent is what
// the shim sent.
func parseCall(t testing.TB, line []byte) *Call {
	t.Helper()
	c := &Call{}
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
	c.Request = in.New().Interface()
	if err := proto.Unmarshal(c.Raw, c.Request); err != nil {
		t.Fatal(err)
	}
	if n := proto.Size(c.Request); n != len(c.Raw) {
		t.Errorf("%s: %d bytes of %s", c.Method, n, base64.StdEncoding.EncodeToString(c.Raw))
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
func (l *Life) commands() map[processKey]string {
	out := map[processKey]string{}
	for _, c := range l.Calls {
		switch r := c.Request.(type) {
		case *agentpb.CreateContainerRequest:
			out[processKey{container: r.GetContainerId()}] = strings.Join(r.GetOCI().GetProcess().GetArgs(), " ")
		case *agentpb.ExecProcessRequest:
			out[keyOf(r)] = strings.Join(r.GetProcess().GetArgs(), " ")
		}
	}
	return out
}
