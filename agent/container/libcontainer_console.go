package container

import (
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

// spawnTerminal starts lp on a terminal of the container's own devpts. Init
// opens it there, because a terminal of the guest's devpts would have no name
// inside, and sends the master over a socket.
func (j *jail) spawnTerminal(lp *libcontainer.Process) (Proc, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make console socket: %w", err)
	}
	defer unix.Close(fds[0])
	lp.ConsoleSocket = os.NewFile(uintptr(fds[1]), "console-socket")
	p, err := j.start(lp)
	lp.ConsoleSocket.Close()
	if err != nil {
		return nil, err
	}
	// The message is in the socket by the time the start has succeeded.
	if p.console, err = receiveFile(fds[0]); err != nil {
		err = fmt.Errorf("receive console: %w", err)
		killed := p.Signal(unix.SIGKILL)
		_, waited := p.Wait()
		return nil, errors.Join(err, killed, waited)
	}
	return p, nil
}

// receiveFile takes one descriptor from a unix socket, without waiting, and
// makes it non-blocking, which is what lets deadlines end a read.
func receiveFile(socket int) (*os.File, error) {
	name, oob := make([]byte, unix.PathMax), make([]byte, unix.CmsgSpace(4))
	_, oobn, _, _, err := unix.Recvmsg(socket, name, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, err
	}
	if len(messages) != 1 {
		return nil, fmt.Errorf("%d control messages instead of one", len(messages))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "console"), nil
}
