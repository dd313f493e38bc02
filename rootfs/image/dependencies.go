package image

import (
	"path"
	"strings"
)

// dependencyFiles returns modules.dep, in the form of depmod(8), for each kernel
// that there are modules of: one line per module, with all that it needs, each
// before what it needs itself. modules must be in an order in which they can be
// loaded.
func dependencyFiles(modules []module) map[string]string {
	out := map[string]string{}
	for _, m := range modules {
		dir, file, ok := releaseDir(m.Path)
		if !ok {
			continue
		}
		line := file + ":"
		needed := allNeeds(m, modules)
		for i := len(modules) - 1; i >= 0; i-- {
			if needed[moduleName(path.Base(modules[i].Path))] {
				_, file, _ := releaseDir(modules[i].Path)
				line += " " + file
			}
		}
		out[dir+"/modules.dep"] += line + "\n"
	}
	return out
}

// releaseDir splits lib/modules/RELEASE/FILE.
func releaseDir(p string) (dir, file string, ok bool) {
	rest, ok := strings.CutPrefix(p, "lib/modules/")
	release, file, found := strings.Cut(rest, "/")
	return "lib/modules/" + release, file, ok && found
}

// allNeeds are the names of the modules that m needs, directly or not.
func allNeeds(m module, modules []module) map[string]bool {
	needed := map[string]bool{}
	for _, n := range m.needs {
		needed[moduleName(n)] = true
	}
	for i := len(modules) - 1; i >= 0; i-- {
		if needed[moduleName(path.Base(modules[i].Path))] {
			for _, n := range modules[i].needs {
				needed[moduleName(n)] = true
			}
		}
	}
	return needed
}
