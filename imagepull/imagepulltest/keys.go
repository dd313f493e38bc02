package imagepulltest

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/secret"
	"github.com/coffer-cc/coffer/imagepull/encrypt"
)

// Keys is a key broker in memory.
type Keys struct {
	mu     sync.Mutex // guards what follows
	values map[string]secret.Bytes
	asked  map[string]int
	refuse error
}

// NewKeys returns a broker that knows nothing yet.
func NewKeys() *Keys {
	return &Keys{values: map[string]secret.Bytes{}, asked: map[string]int{}}
}

// Put stores a resource under repository/type/tag.
func (k *Keys) Put(path string, value []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.values[path] = value
}

// Refuse makes every further request fail; nil ends that.
func (k *Keys) Refuse(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refuse = err
}

// Asked tells how often a resource was asked for.
func (k *Keys) Asked(path string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asked[path]
}

// Resource implements the broker.
func (k *Keys) Resource(ctx context.Context, u resource.URI) (secret.Bytes, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked[u.Path()]++
	if k.refuse != nil {
		return nil, k.refuse
	}
	v, ok := k.values[u.Path()]
	if !ok {
		return nil, fmt.Errorf("key broker has no such resource: %w", errdefs.ErrNotFound)
	}
	return v.Clone(), nil
}

// Encrypt encrypts the image src of the registry to dst ("name:tag" both) by a
// new key that k then knows as path.
func (r *Registry) Encrypt(t testing.TB, src, dst string, k *Keys, path string) encrypt.Options {
	t.Helper()
	id, err := resource.ParsePath(path)
	if err != nil {
		t.Fatal(err)
	}
	key := make(secret.Bytes, 32)
	rand.Read(key)
	o := encrypt.Options{Key: key, KeyID: id, Remote: r.Remote()}
	if _, err := encrypt.Encrypt(context.Background(), r.Docker(src), r.Docker(dst), o); err != nil {
		t.Fatal(err)
	}
	k.Put(path, key)
	return o
}

// Sign signs the image "name:tag" by a new key and returns the public half.
func (r *Registry) Sign(t testing.TB, ref string) (public []byte) {
	t.Helper()
	private, public, err := encrypt.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := encrypt.ParseKey(private)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := encrypt.Sign(context.Background(), r.Docker(ref), key, encrypt.SignOptions{Remote: r.Remote()}); err != nil {
		t.Fatal(err)
	}
	return public
}

// Policy returns a policy.json that accepts images signed by the key alone.
func Policy(public []byte) []byte {
	return fmt.Appendf(nil, `{"default":[{"type":"reject"}],"transports":{"docker":{"":[{"type":"sigstoreSigned","keyData":%q}]}}}`, public)
}
