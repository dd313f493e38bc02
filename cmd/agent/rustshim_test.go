package main

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/coffer-cc/coffer/agent/guest"
	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/protos/typespb"
)

// rustMAC is the address of the pod's card.
const rustMAC = "02:00:ca:fe:00:05"

// TestRustShim leads a pod through its life as runtime-rs does, where that
// differs from the Go shim whose lives are recorded: neighbours come before
// routes, a process is named by the empty id where its init is meant, an empty
// write ends the input, and what is gone already is NOT_FOUND.
func TestRustShim(t *testing.T) {
	if !inGuest(t) {
		return
	}
	makeRoot(t, filepath.Join(guest.SharedDir, "root"))
	agent := bootAgent(t, allowAll, realAgent)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	a := api{agentpb.NewAgentServiceClient(agent.client), t, ctx}
	stageLink(t, rustMAC)
	rustNetwork(a)
	_, err := a.CreateSandbox(ctx, &agentpb.CreateSandboxRequest{SandboxId: "pod1", Hostname: "web"})
	a.must("create sandbox", err)
	details, err := a.GetGuestDetails(ctx, &agentpb.GuestDetailsRequest{MemBlockSize: true, MemHotplugProbe: true})
	if err != nil || details.GetAgentDetails() == nil {
		t.Errorf("guest details %v, %v", details, err)
	}
	rustLife(a)
	_, err = a.DestroySandbox(ctx, &agentpb.DestroySandboxRequest{})
	a.must("destroy", err)
	<-agent.destroyed
	agent.end(t)
}

// rustNetwork pushes the network in the order of runtime-rs. The neighbour and
// the routes name the card by the name that the call before has given it.
func rustNetwork(a api) {
	_, err := a.UpdateInterface(a.ctx, &agentpb.UpdateInterfaceRequest{Interface: &typespb.Interface{
		Device: "eth0", Name: "eth0", Mtu: 1400, HwAddr: rustMAC, Type: "veth",
		IPAddresses: []*typespb.IPAddress{{Address: "10.88.0.5", Mask: "24"}},
	}})
	a.must("update interface", err)
	_, err = a.AddARPNeighbors(a.ctx, &agentpb.AddARPNeighborsRequest{Neighbors: &agentpb.ARPNeighbors{
		ARPNeighbors: []*typespb.ARPNeighbor{{
			ToIPAddress: &typespb.IPAddress{Address: "10.88.0.1"}, Device: "eth0", Lladdr: "02:00:ca:fe:00:01", State: 0x80,
		}},
	}})
	a.must("add neighbours", err)
	routes, err := a.UpdateRoutes(a.ctx, &agentpb.UpdateRoutesRequest{Routes: &agentpb.Routes{Routes: []*typespb.Route{
		{Dest: "", Gateway: "10.88.0.1", Device: "eth0"},
		{Dest: "10.88.0.0/24", Source: "10.88.0.5", Device: "eth0", Scope: 253},
	}}})
	if err != nil || len(routes.GetRoutes()) < 2 {
		a.t.Errorf("routes %v, %v", routes, err)
	}
}

// rustLife creates, feeds, stops and removes a container.
func rustLife(a api) {
	a.must("create", a.create("c1", "cat; exec sleep 1000"))
	_, err := a.StartContainer(a.ctx, &agentpb.StartContainerRequest{ContainerId: "c1"})
	a.must("start", err)
	wrote, err := a.WriteStdin(a.ctx, &agentpb.WriteStreamRequest{ContainerId: "c1", Data: []byte("in\n")})
	if err != nil || wrote.GetLen() != 3 {
		a.t.Errorf("wrote %v, %v", wrote, err)
	}
	_, err = a.WriteStdin(a.ctx, &agentpb.WriteStreamRequest{ContainerId: "c1"})
	a.must("end the input", err)
	r, err := a.ReadStdout(a.ctx, &agentpb.ReadStreamRequest{ContainerId: "c1", Len: 100})
	if err != nil || string(r.GetData()) != "in\n" {
		a.t.Errorf("read %q, %v", r.GetData(), err)
	}
	_, err = a.SignalProcess(a.ctx, &agentpb.SignalProcessRequest{ContainerId: "c1", Signal: 9})
	a.must("kill", err)
	if code := a.wait("c1", ""); code != 137 {
		a.t.Errorf("init returned %d, want 137", code)
	}
	_, err = a.SignalProcess(a.ctx, &agentpb.SignalProcessRequest{ContainerId: "c1", ExecId: "gone", Signal: 9})
	a.refused("kill an exec that never was", err, codes.NotFound, "")
	_, err = a.RemoveContainer(a.ctx, &agentpb.RemoveContainerRequest{ContainerId: "c1"})
	a.must("remove", err)
	_, err = a.RemoveContainer(a.ctx, &agentpb.RemoveContainerRequest{ContainerId: "c1"})
	a.refused("remove what is gone", err, codes.NotFound, "c1")
}
