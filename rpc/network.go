package rpc

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/coffer-cc/coffer/agent/network"
	"github.com/coffer-cc/coffer/protos/agentpb"
	"github.com/coffer-cc/coffer/protos/typespb"
)

// updateInterface echoes the interface, as shims expect.
func (s *Server) updateInterface(ctx context.Context, r *agentpb.UpdateInterfaceRequest) (*typespb.Interface, error) {
	m := r.GetInterface()
	if m == nil {
		return nil, missing("interface")
	}
	return m, s.deps.Network.UpdateInterface(ctx, network.Interface{
		Name: m.GetName(), Addresses: addresses(m.GetIPAddresses()), MTU: m.GetMtu(),
		HWAddr: m.GetHwAddr(), DevicePath: m.GetDevicePath(), Flags: m.GetRawFlags(),
	})
}

func (s *Server) updateRoutes(ctx context.Context, r *agentpb.UpdateRoutesRequest) (*agentpb.Routes, error) {
	if r.GetRoutes() == nil {
		return nil, missing("routes")
	}
	var want []network.Route
	for _, m := range r.GetRoutes().GetRoutes() {
		want = append(want, network.Route{
			Dest: m.GetDest(), Gateway: m.GetGateway(), Device: m.GetDevice(), Source: m.GetSource(),
			Scope: m.GetScope(), IPv6: m.GetFamily() == typespb.IPFamily_v6, Flags: m.GetFlags(), MTU: m.GetMtu(),
		})
	}
	now, err := s.deps.Network.UpdateRoutes(ctx, want)
	return routes(now), err
}

func (s *Server) listInterfaces(ctx context.Context, _ *agentpb.ListInterfacesRequest) (*agentpb.Interfaces, error) {
	all, err := s.deps.Network.ListInterfaces(ctx)
	out := &agentpb.Interfaces{}
	for _, i := range all {
		m := &typespb.Interface{Name: i.Name, Mtu: i.MTU, HwAddr: i.HWAddr}
		for _, a := range i.Addresses {
			m.IPAddresses = append(m.IPAddresses, &typespb.IPAddress{Family: family(strings.Contains(a.Address, ":")), Address: a.Address, Mask: a.Mask})
		}
		out.Interfaces = append(out.Interfaces, m)
	}
	return out, err
}

func (s *Server) listRoutes(ctx context.Context, _ *agentpb.ListRoutesRequest) (*agentpb.Routes, error) {
	all, err := s.deps.Network.ListRoutes(ctx)
	return routes(all), err
}

func (s *Server) addARPNeighbors(ctx context.Context, r *agentpb.AddARPNeighborsRequest) (*emptypb.Empty, error) {
	if r.GetNeighbors() == nil {
		return nil, missing("neighbors")
	}
	var want []network.Neighbor
	for _, m := range r.GetNeighbors().GetARPNeighbors() {
		want = append(want, network.Neighbor{
			IP: m.GetToIPAddress().GetAddress(), Device: m.GetDevice(), HWAddr: m.GetLladdr(),
			State: m.GetState(), Flags: m.GetFlags(),
		})
	}
	return empty, s.deps.Network.AddNeighbors(ctx, want)
}

func (s *Server) getIPTables(ctx context.Context, r *agentpb.GetIPTablesRequest) (*agentpb.GetIPTablesResponse, error) {
	data, err := s.deps.IPTables.Save(ctx, r.GetIsIpv6())
	return &agentpb.GetIPTablesResponse{Data: data}, err
}

func (s *Server) setIPTables(ctx context.Context, r *agentpb.SetIPTablesRequest) (*agentpb.SetIPTablesResponse, error) {
	data, err := s.deps.IPTables.Restore(ctx, r.GetIsIpv6(), r.GetData())
	return &agentpb.SetIPTablesResponse{Data: data}, err
}

func routes(rs []network.Route) *agentpb.Routes {
	out := &agentpb.Routes{}
	for _, r := range rs {
		out.Routes = append(out.Routes, &typespb.Route{
			Dest: r.Dest, Gateway: r.Gateway, Device: r.Device, Source: r.Source,
			Scope: r.Scope, Family: family(r.IPv6), Flags: r.Flags, Mtu: r.MTU,
		})
	}
	return out
}

func family(ipv6 bool) typespb.IPFamily {
	if ipv6 {
		return typespb.IPFamily_v6
	}
	return typespb.IPFamily_v4
}

func missing(field string) error {
	return fmt.Errorf("%s is missing: %w", field, errdefs.ErrInvalidArgument)
}
