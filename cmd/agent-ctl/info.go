package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// agentInfo is what info prints.
type agentInfo struct {
	Address         string   `json:"address"`
	Version         string   `json:"version"`
	Status          string   `json:"status"`
	InitDaemon      *bool    `json:"init_daemon,omitempty"`
	Seccomp         *bool    `json:"supports_seccomp,omitempty"`
	StorageHandlers []string `json:"storage_handlers,omitempty"`
	DeviceHandlers  []string `json:"device_handlers,omitempty"`
	ExtraFeatures   []string `json:"extra_features,omitempty"`
	MemBlockSize    uint64   `json:"mem_block_size_bytes,omitempty"`
	Withheld        string   `json:"withheld,omitempty"` // why the details are missing
}

func (a *app) infoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "info",
		Short: "Show what the agent is and can do",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), func(c *client) error { return a.info(cmd.Context(), c) })
		},
	}
}

func (a *app) info(ctx context.Context, c *client) error {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	ver, err := c.health.Version(ctx, &agentpb.CheckRequest{})
	if err != nil {
		return failed("Version", err)
	}
	chk, err := c.health.Check(ctx, &agentpb.CheckRequest{})
	if err != nil {
		return failed("Check", err)
	}
	in := agentInfo{Address: a.address, Version: ver.AgentVersion, Status: chk.Status.String()}
	details, err := c.agent.GetGuestDetails(ctx, &agentpb.GuestDetailsRequest{MemBlockSize: true})
	switch {
	case err == nil:
		in.fill(details)
	case code(err) == codes.PermissionDenied:
		// Health is outside the policy, so there is still something to show.
		in.Withheld = failed("GetGuestDetails", err).Error()
	default:
		return failed("GetGuestDetails", err)
	}
	return a.print(in, in.rows())
}

func (in *agentInfo) fill(d *agentpb.GuestDetailsResponse) {
	ad := d.GetAgentDetails()
	init, seccomp := ad.GetInitDaemon(), ad.GetSupportsSeccomp()
	in.InitDaemon, in.Seccomp = &init, &seccomp
	in.StorageHandlers, in.DeviceHandlers = ad.GetStorageHandlers(), ad.GetDeviceHandlers()
	in.ExtraFeatures = ad.GetExtraFeatures()
	in.MemBlockSize = d.GetMemBlockSizeBytes()
}

func (in *agentInfo) rows() [][]string {
	rows := [][]string{{"address", in.Address}, {"version", in.Version}, {"status", in.Status}}
	if in.Withheld != "" {
		return append(rows, []string{"details", in.Withheld})
	}
	return append(rows,
		[]string{"init daemon", fmt.Sprint(*in.InitDaemon)},
		[]string{"seccomp", fmt.Sprint(*in.Seccomp)},
		[]string{"storage handlers", strings.Join(in.StorageHandlers, " ")},
		[]string{"device handlers", strings.Join(in.DeviceHandlers, " ")},
		[]string{"extra features", strings.Join(in.ExtraFeatures, " ")},
		[]string{"memory block", fmt.Sprint(in.MemBlockSize)},
	)
}

// pong is one answer to ping.
type pong struct {
	Status string  `json:"status"`
	Millis float64 `json:"ms"`
}

func (a *app) pingCommand() *cobra.Command {
	var wait time.Duration
	var count int
	cmd := &cobra.Command{
		Use:   "ping",
		Short: "Ask the agent whether it serves, and how fast",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if count < 1 {
				return usagef("--count %d: must be at least 1", count)
			}
			return a.ping(cmd.Context(), count, wait)
		},
	}
	cmd.Flags().IntVarP(&count, "count", "c", 1, "`N` checks over one connection")
	cmd.Flags().DurationVar(&wait, "wait", 0, "keep trying this long until the agent answers")
	return cmd
}

func (a *app) ping(ctx context.Context, count int, wait time.Duration) error {
	c, err := a.dialWithin(ctx, wait)
	if err != nil {
		return err
	}
	defer c.Close()
	var pongs []pong
	rows := [][]string{{"STATUS", "MS"}}
	for range count {
		p, err := check(ctx, c)
		if err != nil {
			return err
		}
		pongs = append(pongs, p)
		rows = append(rows, []string{p.Status, fmt.Sprintf("%.3f", p.Millis)})
	}
	return a.print(pongs, rows)
}

// dialWithin connects and checks once, again and again while wait lasts. Each
// try is short: a hypervisor accepts connections before the agent in its guest
// does, and may keep one that nobody will ever answer.
func (a *app) dialWithin(ctx context.Context, wait time.Duration) (*client, error) {
	const pause, try = 100 * time.Millisecond, 2 * time.Second
	if wait == 0 {
		return a.dialChecked(ctx)
	}
	for end := time.Now().Add(wait); ; time.Sleep(pause) {
		tctx, cancel := context.WithTimeout(ctx, try)
		c, err := a.dialChecked(tctx)
		cancel()
		if err == nil || exitCode(err) != exitUnreachable || ctx.Err() != nil || time.Now().Add(pause).After(end) {
			return c, err
		}
	}
}

// dialChecked returns a connection on which the agent has answered.
func (a *app) dialChecked(ctx context.Context) (*client, error) {
	c, err := a.dial(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := check(ctx, c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func check(ctx context.Context, c *client) (pong, error) {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	start := time.Now()
	r, err := c.health.Check(ctx, &agentpb.CheckRequest{})
	if err != nil {
		return pong{}, failed("Check", err)
	}
	return pong{r.Status.String(), float64(time.Since(start).Microseconds()) / 1000}, nil
}
