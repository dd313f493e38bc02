package devices

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"tags.cncf.io/container-device-interface/pkg/parser"
)

const visibleVariable = "VISIBLE_CDI_DEVICES"

// visibleDevices reads the variable, whose form is that of NVIDIA's own:
//
//	nvidia.com/gpu=all:nvidia.com/ib=0,1
//
// Empty, "none" and "void" ask for nothing. Anything else is an error: a
// container that meant to have a device must not run without it.
func visibleDevices(env []string) ([]string, error) {
	value := ""
	for _, entry := range env {
		if v, ok := strings.CutPrefix(entry, visibleVariable+"="); ok {
			value = strings.TrimSpace(v)
			break
		}
	}
	switch value {
	case "", "none", "void":
		return nil, nil
	}
	var out []string
	for entry := range strings.SplitSeq(value, ":") {
		names, err := visibleEntry(strings.TrimSpace(entry))
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", visibleVariable, errdefs.ErrInvalidArgument, err)
		}
		out = append(out, names...)
	}
	return out, nil
}

// visibleEntry reads one KIND=all or KIND=N,N….
func visibleEntry(entry string) ([]string, error) {
	kind, list, ok := strings.Cut(entry, "=")
	if !ok {
		return nil, fmt.Errorf("%.80q is not KIND=DEVICES", entry)
	}
	var out []string
	devices := strings.Split(list, ",")
	for _, d := range devices {
		d = strings.TrimSpace(d)
		n, err := strconv.ParseUint(d, 10, 32)
		switch {
		case d == "all" && len(devices) > 1:
			return nil, fmt.Errorf("%.80q mixes all with numbers", entry)
		case d == "all":
		case err != nil:
			return nil, fmt.Errorf("%.80q: %.80q is neither all nor a number", entry, d)
		default:
			d = strconv.FormatUint(n, 10)
		}
		name := strings.TrimSpace(kind) + "=" + d
		if _, _, _, err := parser.ParseQualifiedName(name); err != nil {
			return nil, err
		}
		out = append(out, name)
	}
	return out, nil
}
