package image

import (
	"slices"
	"strings"
	"testing"
)

func TestProgram(t *testing.T) {
	has := func(add []Addition, part string) bool {
		return slices.ContainsFunc(add, func(a Addition) bool { return strings.Contains(a.Target, part) && a.Source == a.Target })
	}
	add, err := Program("mkfs.ext4")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/mkfs.ext4", "/libext2fs.so", "/libc.so", "/ld-linux"} {
		if !has(add, want) {
			t.Errorf("%v lacks %s", add, want)
		}
	}
	static := program(t)
	if add, err := Program(static); err != nil || len(add) != 1 {
		t.Errorf("static program: %v, %v", add, err)
	}
	for _, bad := range []string{"no-such-program", "/etc/passwd"} {
		if _, err := Program(bad); err == nil {
			t.Errorf("%s is a program", bad)
		}
	}
}
