package vm

import (
	"context"
	"path/filepath"
)

// startTPM runs swtpm on its state, for QEMU alone.
func (v *VM) startTPM(ctx context.Context, state string) ([]string, error) {
	if state == "" {
		return nil, nil
	}
	socket := filepath.Join(v.dir, "tpm")
	if err := v.helper(ctx, socket, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state, "--ctrl", "type=unixio,path="+socket); err != nil {
		return nil, err
	}
	return []string{
		"-chardev", "socket,id=tpm,path=" + escape(socket),
		"-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0",
	}, nil
}
