package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// method is one call of the protocol, known from its descriptor alone.
type method struct {
	service, name string
	in, out       protoreflect.MessageDescriptor
}

// methods lists all calls of all services, in the order of the .proto files.
func methods() []method {
	var ms []method
	for _, f := range []protoreflect.FileDescriptor{agentpb.File_protos_agent_proto, agentpb.File_protos_health_proto} {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				ms = append(ms, method{string(s.FullName()), string(m.Name()), m.Input(), m.Output()})
			}
		}
	}
	return ms
}

// find accepts the method's name alone: no two services share one.
func find(name string) (method, error) {
	for _, m := range methods() {
		if strings.EqualFold(m.name, name) {
			return m, nil
		}
	}
	return method{}, usagef("no method %q: see agent-ctl rpc --list", name)
}

func (a *app) rpcCommand() *cobra.Command {
	var list, template bool
	cmd := &cobra.Command{
		Use:   "rpc METHOD [JSON | @FILE | -]",
		Short: "Call any method of the protocol with a request in JSON",
		Long: "Call any method of the protocol. The request is JSON with the field names of\n" +
			"the .proto files: given in place, in a file, or on stdin; without one the\n" +
			"request is empty. The reply is printed as JSON. Calls that wait, such as\n" +
			"WaitProcess, want --timeout 0.",
		Example: "  agent-ctl rpc --template UpdateInterface\n" +
			"  agent-ctl rpc SignalProcess '{\"container_id\": \"web\", \"signal\": 15}'",
		Args: cobra.MaximumNArgs(2),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			for _, m := range methods() {
				names = append(names, m.name)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case list && len(args) == 0:
				return a.listMethods()
			case list || len(args) == 0:
				return usagef("give either a METHOD or --list")
			case template:
				return a.printTemplate(args[0])
			}
			return a.rpc(cmd.Context(), args)
		},
	}
	cmd.Flags().BoolVar(&list, "list", false, "list the methods with their messages")
	cmd.Flags().BoolVar(&template, "template", false, "print an empty request with every field instead of calling")
	return cmd
}

func (a *app) listMethods() error {
	type entry struct{ Service, Method, Request, Reply string }
	var entries []entry
	rows := [][]string{{"METHOD", "REQUEST", "REPLY"}}
	for _, m := range methods() {
		e := entry{m.service, m.name, string(m.in.Name()), string(m.out.Name())}
		entries = append(entries, e)
		rows = append(rows, []string{e.Method, e.Request, e.Reply})
	}
	return a.print(entries, rows)
}

func (a *app) printTemplate(name string) error {
	m, err := find(name)
	if err != nil {
		return err
	}
	msg, err := newMessage(m.in)
	if err != nil {
		return err
	}
	return a.printMessage(msg, protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true})
}

func (a *app) rpc(ctx context.Context, args []string) error {
	m, err := find(args[0])
	if err != nil {
		return err
	}
	req, err := newMessage(m.in)
	if err != nil {
		return err
	}
	if err := a.readRequest(req, args[1:]); err != nil {
		return err
	}
	resp, err := newMessage(m.out)
	if err != nil {
		return err
	}
	return a.withClient(ctx, func(c *client) error {
		ctx, cancel := c.limit(ctx)
		defer cancel()
		if err := c.Call(ctx, m.service, m.name, req, resp); err != nil {
			return failed(m.name, err)
		}
		return a.printMessage(resp, protojson.MarshalOptions{UseProtoNames: true})
	})
}

func (a *app) readRequest(req proto.Message, args []string) (err error) {
	if len(args) == 0 {
		return nil
	}
	raw := []byte(args[0])
	switch {
	case args[0] == "-":
		raw, err = io.ReadAll(a.in)
	case strings.HasPrefix(args[0], "@"):
		raw, err = os.ReadFile(args[0][1:])
	}
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if err := protojson.Unmarshal(raw, req); err != nil {
		return usagef("the request is no %s: %w", req.ProtoReflect().Descriptor().Name(), err)
	}
	return nil
}

// printMessage goes through encoding/json, because protojson varies its spacing
// on purpose.
func (a *app) printMessage(m proto.Message, o protojson.MarshalOptions) error {
	raw, err := o.Marshal(m)
	if err != nil {
		return err
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, raw, "", "  "); err != nil {
		return err
	}
	_, err = a.out.Write(slices.Concat(pretty.Bytes(), []byte{'\n'}))
	return err
}

func newMessage(d protoreflect.MessageDescriptor) (proto.Message, error) {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		return nil, err
	}
	return mt.New().Interface(), nil
}
