package imagepull_test

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/imagepull"
	. "github.com/coffer-cc/coffer/imagepull/imagepulltest"
)

func TestCredentials(t *testing.T) {
	r, keys := NewRegistry(t), NewKeys()
	r.Push(t, "team/app:1", NewLayer(t, Gzip, File("a", "a")))
	r.RequireAuth("user", "pass:word")
	auth := func(password string) []byte {
		return []byte(`{"auths":{"` + r.Host + `/team":{"username":"user","password":"` + password + `"}},"credsStore":"evil"}`)
	}
	keys.Put("default/credential/test", auth("old"))
	p := newPuller(t, r, func(c *imagepull.Config) {
		c.Keys, c.CredentialsURI = keys, "kbs:///default/credential/test"
	})
	if _, err := p.Pull(t.Context(), r.Ref("team/app:1"), "c1"); !errdefs.IsUnauthorized(err) || strings.Contains(err.Error(), "old") {
		t.Errorf("old password: %v", err)
	}
	keys.Put("default/credential/test", auth("pass:word"))
	if _, err := p.Pull(t.Context(), r.Ref("team/app:1"), "c1"); err != nil {
		t.Errorf("new password: %v", err)
	}
}

func TestPlainHTTP(t *testing.T) {
	r := NewPlainRegistry(t)
	r.Push(t, "app:1", NewLayer(t, Gzip, File("a", "a")))
	if _, err := newPuller(t, r, nil).Pull(t.Context(), r.Ref("app:1"), "c1"); err != nil {
		t.Errorf("allowed: %v", err)
	}
	p := newPuller(t, r, func(c *imagepull.Config) { c.Registry.Registries = nil })
	if _, err := p.Pull(t.Context(), r.Ref("app:1"), "c1"); err == nil {
		t.Error("plain HTTP without permission")
	}
	if n := r.Count("GET", "/blobs/"); n != 2 {
		t.Errorf("%d blobs were fetched", n)
	}
}
