// Package registry reads images from OCI registries: references, credentials,
// manifests, configurations and blobs. Nothing that it hands out is unverified:
// a manifest and a configuration match their digests before they are parsed,
// and a blob's reader ends with an error when size or digest differ.
//
// It drives github.com/containers/image's docker source, because that library
// knows the authentication, mirrors and signature stores of registries in use.
// Its package copy stays out: it needs no less than a database and reflection
// that keeps dead code alive. Successive versions of the library live under
// another import path; this folder and its sibling signature are what a move
// touches. errcode of github.com/docker/distribution tells what a registry
// answered, since the library wraps its types.
package registry

import (
	"cmp"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/types"
)

// Config says how registries are reached. All of it comes from measured
// configuration: it decides whom the guest believes.
type Config struct {
	// Dir is where a private directory (0700) for the library's files is made.
	// It holds certificates and never credentials.
	Dir        string
	Roots      []string   // PEM, trusted beside the system's
	Registries []Registry // mirrors, replacements, blocks
	// RegistriesConf is the text of a registries.conf, version 2. It counts
	// only without Registries.
	RegistriesConf []byte
	// Lookaside is YAML that says where simple signatures are kept, spelled as
	// a file of registries.d. Signatures beside the image are always looked for.
	Lookaside []byte
	Proxy     Proxy
	Agent     string // User-Agent

	Timeout  time.Duration // of one manifest or configuration; 30 s
	Stall    time.Duration // a blob's connection with less than 16 KiB in it is given up; 30 s
	Attempts int           // per request and per MiB of a blob; 4
	Backoff  time.Duration // before the second attempt, doubled after each; 500 ms
	Layers   int           // most layers of an image; 500, the kernel's limit for an overlay
}

// Client reads images. It is safe for concurrent use.
type Client struct {
	config Config
	files  *files
	sys    types.SystemContext // never changed; requests work on copies
}

// New writes the library's files and checks the configuration. Close removes them.
func New(c Config) (*Client, error) {
	c.Timeout = cmp.Or(c.Timeout, 30*time.Second)
	c.Stall = cmp.Or(c.Stall, 30*time.Second)
	c.Attempts = cmp.Or(c.Attempts, 4)
	c.Backoff = cmp.Or(c.Backoff, 500*time.Millisecond)
	c.Layers = cmp.Or(c.Layers, 500)
	if err := c.Proxy.check(); err != nil {
		return nil, err
	}
	f, err := writeFiles(c)
	if err != nil {
		return nil, fmt.Errorf("prepare registry access: %w", err)
	}
	client := &Client{config: c, files: f, sys: f.context()}
	client.sys.DockerRegistryUserAgent = c.Agent
	if err := checkRegistries(&client.sys); err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}

// Close removes the private directory. No image may be in use.
func (c *Client) Close() error { return os.RemoveAll(c.files.dir) }

// system returns the library's settings for one reference.
func (c *Client) system(r Reference, auth *Auth) (*types.SystemContext, error) {
	sys := c.sys
	// Set even when empty: without it the library looks into files of $HOME.
	sys.DockerAuthConfig = &types.DockerAuthConfig{}
	if found, ok := auth.Lookup(r); ok {
		sys.DockerAuthConfig = &found
	}
	text := c.config.Proxy.forHost(r.Host())
	if text == "" {
		return &sys, nil
	}
	proxy, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("malformed proxy: %w", errdefs.ErrInvalidArgument)
	}
	sys.DockerProxyURL = proxy
	return &sys, nil
}

// libraryReference is r for the library.
func libraryReference(r Reference) (types.ImageReference, error) {
	ref, err := docker.NewReference(r.named)
	if err != nil {
		return nil, fmt.Errorf("image reference %q: %w", r, errdefs.ErrInvalidArgument)
	}
	return ref, nil
}
