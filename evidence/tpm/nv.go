package tpm

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/google/go-tpm/tpm2"
)

// nvStep is how much goes into one command: every TPM takes as much (TCG, PC
// Client Platform TPM Profile, TPM_PT_NV_BUFFER_MAX).
const nvStep = 512

// ReadNV returns what the NV index holds, all of it: at most 64 KiB. Without
// such an index, or before it was written for the first time, the error wraps
// errdefs.ErrNotFound.
func (d *Device) ReadNV(index uint32) ([]byte, error) {
	data, err := ask(d, func(l *link) ([]byte, error) {
		nv, err := readIndex(l, index)
		if err != nil {
			return nil, err
		}
		return nv.read(l)
	})
	if err != nil {
		return nil, fmt.Errorf("read NV index %#x: %w", index, err)
	}
	return data, nil
}

// WriteNV makes the NV index hold the data. One that is absent or of another
// size is made anew with the owner's authorisation, which is empty in a guest.
func (d *Device) WriteNV(index uint32, data []byte) error {
	if len(data) == 0 || len(data) > 0xffff {
		return fmt.Errorf("write %d bytes to NV index %#x: %w", len(data), index, errdefs.ErrInvalidArgument)
	}
	_, err := ask(d, func(l *link) (struct{}, error) {
		nv, err := provide(l, index, uint16(len(data)))
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, nv.write(l, data)
	})
	if err != nil {
		return fmt.Errorf("write NV index %#x: %w", index, err)
	}
	return nil
}

// nvIndex is an index that exists.
type nvIndex struct {
	handle tpm2.NamedHandle
	public tpm2.TPMSNVPublic
}

func readIndex(l *link, index uint32) (nvIndex, error) {
	r, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(l)
	if err != nil {
		return nvIndex{}, err
	}
	public, err := r.NVPublic.Contents()
	if err != nil {
		return nvIndex{}, malformed("%v", err)
	}
	return nvIndex{tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: r.NVName}, *public}, nil
}

var owner = tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}

// auth is who may access the index: the owner, or whoever knows its own
// authorisation, which is taken to be empty.
func (nv nvIndex) auth(byOwner bool) tpm2.AuthHandle {
	if byOwner {
		return owner
	}
	return tpm2.AuthHandle{Handle: nv.handle.Handle, Name: nv.handle.Name, Auth: tpm2.PasswordAuth(nil)}
}

func (nv nvIndex) read(l *link) ([]byte, error) {
	size := int(nv.public.DataSize)
	data := make([]byte, 0, size)
	for len(data) < size {
		step := min(nvStep, size-len(data))
		r, err := tpm2.NVRead{
			AuthHandle: nv.auth(nv.public.Attributes.OwnerRead), NVIndex: nv.handle,
			Size: uint16(step), Offset: uint16(len(data)),
		}.Execute(l)
		if err != nil {
			return nil, err
		}
		if len(r.Data.Buffer) != step {
			return nil, malformed("%d bytes, asked for %d", len(r.Data.Buffer), step)
		}
		data = append(data, r.Data.Buffer...)
	}
	return data, nil
}

// write writes data of just the size of the index.
func (nv nvIndex) write(l *link, data []byte) error {
	for at := 0; at < len(data); at += nvStep {
		_, err := tpm2.NVWrite{
			AuthHandle: nv.auth(nv.public.Attributes.OwnerWrite), NVIndex: nv.handle,
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: data[at:min(at+nvStep, len(data))]}, Offset: uint16(at),
		}.Execute(l)
		if err != nil {
			return err
		}
	}
	return nil
}

// provide returns an index of that size.
func provide(l *link, index uint32, size uint16) (nvIndex, error) {
	nv, err := readIndex(l, index)
	switch {
	case err == nil && nv.public.DataSize == size:
		return nv, nil
	case err == nil:
		if _, err := (tpm2.NVUndefineSpace{AuthHandle: owner, NVIndex: nv.handle}).Execute(l); err != nil {
			return nvIndex{}, fmt.Errorf("remove it, as it has %d bytes: %w", nv.public.DataSize, err)
		}
	case !errdefs.IsNotFound(classify(err)):
		return nvIndex{}, err
	}
	_, err = tpm2.NVDefineSpace{
		AuthHandle: owner,
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: tpm2.TPMHandle(index), NameAlg: tpm2.TPMAlgSHA256, DataSize: size,
			Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, AuthWrite: true, NoDA: true},
		}),
	}.Execute(l)
	if err != nil {
		return nvIndex{}, fmt.Errorf("define it: %w", err)
	}
	return readIndex(l, index)
}
