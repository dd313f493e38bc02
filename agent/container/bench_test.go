package container_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// A copy of the binary starts for each create and each exec, so what its
// package initialisers cost shows here.
func BenchmarkLife(b *testing.B) {
	l := needLab(b)
	n := 0
	for b.Loop() {
		n++
		c := l.run(b, fmt.Sprint("life-", n), shell("exit 0"), nil)
		wait(b, start(b, c), 0)
		if err := c.Destroy(patient(b)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExec(b *testing.B) {
	l := needLab(b)
	c := l.run(b, "exec", shell("exec sleep 1000"), nil)
	p := start(b, c)
	for b.Loop() {
		if err := c.Exec(patient(b), "e", shell("exit 0")); err != nil {
			b.Fatal(err)
		}
		wait(b, process(b, c, "e"), 0)
	}
	c.Signal(patient(b), "", unix.SIGKILL)
	wait(b, p, 137)
}

func BenchmarkReadStdout(b *testing.B) {
	l := needLab(b)
	c := l.run(b, "read", shell("exec yes"), nil)
	p := start(b, c)
	ctx := patient(b)
	for b.Loop() {
		got, err := p.ReadStdout(ctx, 32<<10)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(got)))
	}
}
