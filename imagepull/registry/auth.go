package registry

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containers/image/v5/types"
)

// Auth holds credentials for registries, by host or by part of a repository.
// It lives in memory alone. A nil Auth is anonymous.
type Auth struct {
	entries map[string]types.DockerAuthConfig
}

// maxAuth bounds the document.
const maxAuth = 1 << 20

// ParseAuth reads the auth.json of containers or config.json of docker. The
// programs that such a file may name for credentials are ignored: nothing is
// run for a file from outside.
func ParseAuth(raw []byte) (*Auth, error) {
	var doc struct {
		Auths map[string]struct {
			Auth          string `json:"auth"`
			Username      string `json:"username"`
			Password      string `json:"password"`
			IdentityToken string `json:"identitytoken"`
		} `json:"auths"`
	}
	if len(raw) > maxAuth {
		return nil, fmt.Errorf("registry credentials of %d bytes: %w", len(raw), errdefs.ErrInvalidArgument)
	}
	// The decoder's error may quote the document, so it is not wrapped.
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("registry credentials are not JSON of the form {\"auths\":{…}}: %w", errdefs.ErrInvalidArgument)
	}
	a := &Auth{entries: map[string]types.DockerAuthConfig{}}
	for key, e := range doc.Auths {
		c := types.DockerAuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken}
		if e.Auth != "" {
			text, err := base64.StdEncoding.DecodeString(e.Auth)
			user, password, ok := strings.Cut(string(text), ":")
			if err != nil || !ok {
				return nil, fmt.Errorf("registry credentials for %.80q are not base64 of user:password: %w", key, errdefs.ErrInvalidArgument)
			}
			// Old tools pad the text with zero bytes.
			c.Username, c.Password = user, strings.Trim(password, "\x00")
		}
		a.entries[authKey(key)] = c
	}
	return a, nil
}

// authKey brings the many spellings of a key to "host" or "host/path".
func authKey(key string) string {
	for _, scheme := range []string{"https://", "http://"} {
		if rest, ok := strings.CutPrefix(key, scheme); ok {
			key, _, _ = strings.Cut(rest, "/") // a URL means its host
		}
	}
	key = strings.TrimSuffix(key, "/")
	host, path, slash := strings.Cut(key, "/")
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		host = "docker.io"
	}
	if !slash || path == "v1" || path == "v2" {
		return host
	}
	return host + "/" + path
}

// Lookup returns the entry for the longest part of the name: the repository,
// the namespaces above it, the host.
func (a *Auth) Lookup(r Reference) (types.DockerAuthConfig, bool) {
	if a == nil {
		return types.DockerAuthConfig{}, false
	}
	for name := r.Repository(); ; {
		if c, ok := a.entries[name]; ok {
			return c, true
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return types.DockerAuthConfig{}, false
		}
		name = name[:i]
	}
}
