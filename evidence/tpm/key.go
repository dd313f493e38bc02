package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/google/go-tpm/tpm2"
)

// ReadPublic returns the public half of the key at a persistent handle, an
// *rsa.PublicKey or *ecdsa.PublicKey. Without a key there the error wraps
// errdefs.ErrNotFound.
func (d *Device) ReadPublic(handle uint32) (crypto.PublicKey, error) {
	k, err := ask(d, func(l *link) (key, error) { return readKey(l, handle) })
	return k.public, err
}

// key is a key of the TPM: how commands name it, and the half that others see.
type key struct {
	handle tpm2.AuthHandle
	public crypto.PublicKey
}

func readKey(l *link, handle uint32) (key, error) {
	r, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(handle)}.Execute(l)
	if err != nil {
		return key{}, fmt.Errorf("read the public key at %#x: %w", handle, err)
	}
	public, err := r.OutPublic.Contents()
	if err != nil {
		return key{}, malformed("public key at %#x: %v", handle, err)
	}
	k := key{handle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(handle), Name: r.Name, Auth: tpm2.PasswordAuth(nil)}}
	if k.public, err = publicKey(*public); err != nil {
		return key{}, fmt.Errorf("public key at %#x: %w", handle, err)
	}
	return k, nil
}

// publicKey refuses points that are not on their curve, which the library does
// not look at.
func publicKey(public tpm2.TPMTPublic) (crypto.PublicKey, error) {
	pub, err := tpm2.Pub(public)
	if err != nil {
		return nil, malformed("%v", err)
	}
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		if pub.Size() < 256 || pub.Size() > 512 || pub.E < 3 {
			return nil, malformed("RSA modulus of %d bytes with the exponent %d", pub.Size(), pub.E)
		}
		return pub, nil
	case *ecdsa.PublicKey:
		if _, err := pub.ECDH(); err != nil {
			return nil, malformed("%v", err)
		}
		return pub, nil
	}
	return nil, fmt.Errorf("a key of the type %T: %w", pub, errdefs.ErrNotImplemented)
}
