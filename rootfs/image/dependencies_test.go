package image

import "testing"

func TestDependencyFiles(t *testing.T) {
	at := func(name string) string { return "lib/modules/9/kernel/" + name + ".ko" }
	got := dependencyFiles([]module{
		{Path: at("d")}, {Path: at("b-2"), needs: []string{"d"}}, {Path: at("c"), needs: []string{"d", "builtin"}},
		{Path: at("a"), needs: []string{"b-2", "c"}, spare: true}, {Path: at("alone")}, {Path: "lib/modules/8/x.ko"},
	})
	want := map[string]string{
		"lib/modules/9/modules.dep": "kernel/d.ko:\nkernel/b-2.ko: kernel/d.ko\nkernel/c.ko: kernel/d.ko\n" +
			"kernel/a.ko: kernel/c.ko kernel/b-2.ko kernel/d.ko\nkernel/alone.ko:\n",
		"lib/modules/8/modules.dep": "x.ko:\n",
	}
	for path, text := range want {
		if got[path] != text {
			t.Errorf("%s is %q, want %q", path, got[path], text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
}
