package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/secret"
	"github.com/coffer-cc/coffer/imagepull/encrypt"
	"github.com/coffer-cc/coffer/imagepull/registry"
)

func (a *app) imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Encrypt and sign images",
		Long:  imageHelp,
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(a.imageEncryptCommand(), a.imageSignCommand(), a.imageKeyCommand())
	return cmd
}

const imageHelp = `Encrypt and sign images.

An image is docker://REFERENCE in a registry, or oci:DIRECTORY[:TAG] in an OCI
layout, as skopeo takes them. Registries are used with the login of docker or
podman, unless --authfile or --username say otherwise.

Encrypt first and sign then: a signature is for the digest of what is pulled.`

const encryptHelp = `Encrypt the layers of an image, or of every image that an index lists, and print
the digest of the result. Layers that are encrypted already stay as they are.

Each layer gets a key of its own, which is wrapped with the key in --key. The
guest asks the key broker for that one by --key-id. The format is that of
Confidential Containers, so that other guests and skopeo read it too.

  head -c 32 /dev/urandom > key
  agent-ctl image encrypt docker://registry.example/app:1 docker://registry.example/app:1-enc \
      --key key --key-id kbs:///default/image-key/app`

const signHelp = `Sign an image by a key and put the signature beside it, where cosign puts its
signatures, and print the digest that was signed. Signatures that are there stay.
Of an index the index itself is signed, which covers the images that it lists.

The guest's image policy names the public half of the key:

  {"default": [{"type": "reject"}], "transports": {"docker": {"registry.example/app":
    [{"type": "sigstoreSigned", "keyPath": "kbs:///default/cosign-key/app"}]}}}`

// remoteFlags say how a registry is reached.
type remoteFlags struct {
	roots     []string
	plainHTTP bool
	username  string
	password  string
	authfile  string
}

func (r *remoteFlags) define(f *pflag.FlagSet) {
	f.StringArrayVar(&r.roots, "ca", nil, "PEM `FILE` of a certificate authority to trust in addition, repeatable")
	f.BoolVar(&r.plainHTTP, "plain-http", false, "speak to the registry without TLS")
	f.StringVar(&r.authfile, "authfile", "", "`FILE` with logins of registries, as docker and podman write it; programs that it names are not run")
	f.StringVar(&r.username, "username", "", "log in to the registry as `NAME`")
	f.StringVar(&r.password, "password-file", "", "`FILE` with the password for --username")
}

func (r *remoteFlags) remote() (encrypt.Remote, error) {
	out := encrypt.Remote{PlainHTTP: r.plainHTTP, Username: r.username}
	if (r.username == "") != (r.password == "") {
		return out, usagef("--username and --password-file go together")
	}
	for _, file := range r.roots {
		pem, err := os.ReadFile(file)
		if err != nil {
			return out, err
		}
		out.Roots = append(out.Roots, string(pem))
	}
	if r.authfile != "" {
		if r.username != "" {
			return out, usagef("--authfile and --username exclude each other")
		}
		raw, err := os.ReadFile(r.authfile)
		if err != nil {
			return out, err
		}
		if out.Auth, err = registry.ParseAuth(raw); err != nil {
			return out, fmt.Errorf("%s: %w", r.authfile, err)
		}
	}
	if r.password != "" {
		raw, err := os.ReadFile(r.password)
		if err != nil {
			return out, err
		}
		out.Password = strings.TrimRight(string(raw), "\r\n")
	}
	return out, nil
}

// encryptFlags say with which key, and how the guest will find it.
type encryptFlags struct {
	remoteFlags
	key, keyID, provider string
	version2, quiet      bool
}

func (a *app) imageEncryptCommand() *cobra.Command {
	var f encryptFlags
	cmd := &cobra.Command{
		Use:   "encrypt SOURCE DESTINATION",
		Short: "Encrypt an image's layers, and print the new digest",
		Long:  encryptHelp,
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.imageEncrypt(cmd.Context(), &f, args[0], args[1])
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.key, "key", "", "`FILE` with the 32 bytes that wrap the layers' keys (required)")
	fl.StringVar(&f.keyID, "key-id", "", "`URI` by which the guest asks the key broker for it, kbs:///… (required)")
	fl.StringVar(&f.provider, "provider", encrypt.DefaultProvider, "`NAME` of the key provider in the annotations")
	fl.BoolVar(&f.version2, "packet-v2", false, "write annotation packets of version 2")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "show no progress")
	f.define(fl)
	return cmd
}

func (a *app) imageEncrypt(ctx context.Context, f *encryptFlags, src, dst string) error {
	if f.key == "" || f.keyID == "" {
		return usagef("--key and --key-id are needed")
	}
	id, err := resource.Parse(f.keyID)
	if err != nil {
		return usagef("--key-id: %w", err)
	}
	remote, err := f.remote()
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(f.key)
	if err != nil {
		return err
	}
	key := secret.Bytes(raw)
	defer key.Wipe()
	steps := steps{app: a, live: terminal(a.err) >= 0, quiet: f.quiet}
	d, err := encrypt.Encrypt(ctx, src, dst, encrypt.Options{
		Key: key, KeyID: id, Provider: f.provider, Version2: f.version2, Remote: remote, Observe: steps.show,
	})
	steps.end()
	if err != nil {
		return err
	}
	return a.print(map[string]string{"image": dst, "digest": d.String(), "key_id": id.String()}, [][]string{{d.String()}})
}

func (a *app) imageSignCommand() *cobra.Command {
	var key string
	var o encrypt.SignOptions
	var r remoteFlags
	cmd := &cobra.Command{
		Use:   "sign IMAGE",
		Short: "Sign an image, and print the digest that was signed",
		Long:  signHelp,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if key == "" {
				return usagef("--key is needed")
			}
			text, err := os.ReadFile(key)
			if err != nil {
				return err
			}
			signer, err := encrypt.ParseKey(text)
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			if o.Remote, err = r.remote(); err != nil {
				return err
			}
			d, err := encrypt.Sign(cmd.Context(), args[0], signer, o)
			if err != nil {
				return err
			}
			return a.print(map[string]string{"image": args[0], "digest": d.String()}, [][]string{{d.String()}})
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "PEM `FILE` with the private key (required)")
	cmd.Flags().StringVar(&o.Identity, "identity", "", "`REPOSITORY` that the signature vouches for (default: the image's own)")
	r.define(cmd.Flags())
	return cmd
}

func (a *app) imageKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen PRIVATE-FILE PUBLIC-FILE",
		Short: "Make a key pair for signing",
		Args:  cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			private, public, err := encrypt.GenerateKey()
			if err != nil {
				return err
			}
			defer secret.Bytes(private).Wipe()
			return errors.Join(writeNew(args[0], private, 0o600), writeNew(args[1], public, 0o644))
		},
	}
}

// writeNew never replaces a file: it may be the only copy of a key.
func writeNew(file string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
