package devices

import (
	"slices"
	"strings"
)

// Translate puts the guest's PCI addresses into variables that Kubernetes'
// device plugins have filled with those of the host:
//
//	PCIDEVICE_X=0000:c8:01.2,0000:c8:01.3
//	PCIDEVICE_X_INFO={"0000:c8:01.2":{…},…}
//
// A list with an address that a does not know, or with something else in it,
// stays as it is, and so does what describes it. The argument is not changed.
func (a Addresses) Translate(env []string) []string {
	if len(a) == 0 {
		return env
	}
	out := slices.Clone(env)
	described := map[string]*strings.Replacer{} // by name of the variable with the description
	for i, entry := range out {
		name, list, ok := strings.Cut(entry, "=")
		if !ok || !isPCIDevice(name) || strings.HasSuffix(name, "_INFO") {
			continue
		}
		guest, pairs, ok := a.list(list)
		if ok {
			out[i] = name + "=" + guest
			described[name+"_INFO"] = strings.NewReplacer(pairs...)
		}
	}
	for i, entry := range out {
		name, text, _ := strings.Cut(entry, "=")
		if r := described[name]; r != nil {
			out[i] = name + "=" + r.Replace(text)
		}
	}
	return out
}

func isPCIDevice(name string) bool { return strings.HasPrefix(name, "PCIDEVICE_") }

// list translates a list of addresses, and returns what was replaced by what.
func (a Addresses) list(list string) (guest string, pairs []string, ok bool) {
	hosts := strings.Split(list, ",")
	for i, host := range hosts {
		g, known := a[host]
		if !known {
			return "", nil, false
		}
		pairs = append(pairs, host, g)
		hosts[i] = g
	}
	return strings.Join(hosts, ","), pairs, true
}
