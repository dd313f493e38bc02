// Command awaitmove waits by inotify until something is moved into a directory.
package main

import (
	"fmt"
	"os"
	"syscall"
)

func main() {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC)
	if err == nil {
		_, err = syscall.InotifyAddWatch(fd, os.Args[1], syscall.IN_MOVED_TO)
	}
	if err == nil {
		_, err = syscall.Read(fd, make([]byte, 4096))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
