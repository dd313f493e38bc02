package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"
)

// listed is one container as ps shows it.
type listed struct {
	ID     string `json:"id"`
	State  string `json:"state"`
	PID    int    `json:"pid"`
	Image  string `json:"image"`
	Digest string `json:"digest"`
}

func (a *app) psCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ps",
		Short: "List the containers",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), func(c *client) error {
				ctx, cancel := c.limit(cmd.Context())
				defer cancel()
				list, err := containers(ctx, c)
				if err != nil {
					return err
				}
				rows := [][]string{{"ID", "STATE", "PID", "IMAGE", "DIGEST"}}
				for _, l := range list {
					rows = append(rows, []string{l.ID, l.State, strconv.Itoa(l.PID), l.Image, l.Digest})
				}
				return a.print(list, rows)
			})
		},
	}
}

// containers reads the list from the metrics. It is empty, not nil, when there
// are none.
func containers(ctx context.Context, c *client) ([]listed, error) {
	ss, err := samples(ctx, c, containersFamily)
	if err != nil {
		return nil, err
	}
	list := make([]listed, 0, len(ss))
	for _, s := range ss {
		if s.value == 0 {
			continue
		}
		pid, _ := strconv.Atoi(s.labels["pid"]) // 0 for one that is not running
		list = append(list, listed{
			ID: s.labels["id"], State: s.labels["state"], PID: pid,
			Image: s.labels["image"], Digest: s.labels["digest"],
		})
	}
	return list, nil
}
