package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/coffer-cc/coffer/protos/agentpb"
)

// Families of the agent's metrics that commands read. Metrics are the channel
// because the protocol has no call for either, and so that policy governs them.
const (
	containersFamily = "coffer_containers"
	pullFamily       = "coffer_image_pull_bytes"
)

// sample is one line of the Prometheus text format.
type sample struct {
	labels map[string]string
	value  float64
}

func samples(ctx context.Context, c *client, family string) ([]sample, error) {
	r, err := c.agent.GetMetrics(ctx, &agentpb.GetMetricsRequest{})
	if err != nil {
		return nil, failed("GetMetrics", err)
	}
	return parseMetrics(r.Metrics, family), nil
}

// parseMetrics picks the samples of one family, in order. It skips lines that
// it cannot read, because the rest is still worth having.
func parseMetrics(text, family string) (out []sample) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), family)
		if !ok {
			continue
		}
		s := sample{labels: map[string]string{}}
		if strings.HasPrefix(rest, "{") {
			if rest, ok = parseLabels(rest[1:], s.labels); !ok {
				continue
			}
		}
		number, ok := strings.CutPrefix(rest, " ")
		if !ok {
			continue // a longer family name
		}
		number, _, _ = strings.Cut(strings.TrimSpace(number), " ") // a time stamp may follow
		var err error
		if s.value, err = strconv.ParseFloat(number, 64); err == nil {
			out = append(out, s)
		}
	}
	return out
}

// parseLabels reads name="value" pairs up to the closing brace and returns what
// follows it.
func parseLabels(s string, into map[string]string) (rest string, ok bool) {
	for {
		s = strings.TrimLeft(s, ", ")
		if rest, ok = strings.CutPrefix(s, "}"); ok {
			return rest, true
		}
		name, quoted, found := strings.Cut(s, `="`)
		if !found {
			return "", false
		}
		value, after, found := cutQuoted(quoted)
		if !found {
			return "", false
		}
		into[strings.TrimSpace(name)] = value
		s = after
	}
}

// cutQuoted ends at the first quote without a backslash and resolves the three
// escapes of the format.
func cutQuoted(s string) (value, after string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
			if s[i] == 'n' {
				b.WriteByte('\n')
			} else {
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}
