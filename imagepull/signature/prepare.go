package signature

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/imagepull/registry"
)

// Fetch returns what a kbs:/// or file:// URI names.
type Fetch func(ctx context.Context, uri string) ([]byte, error)

// maxPolicy bounds the document.
const maxPolicy = 1 << 20

// requirement is one entry of a policy's lists. Members that are not touched
// here pass through as they are, for the library to judge.
type requirement = map[string]json.RawMessage

// prepare turns a policy as guests write it into one that the library reads.
func prepare(ctx context.Context, raw []byte, fetch Fetch) ([]byte, error) {
	if len(raw) > maxPolicy {
		return nil, fmt.Errorf("%d bytes: %w", len(raw), errdefs.ErrInvalidArgument)
	}
	// Decoding into maps would quietly merge what the library refuses.
	if err := registry.CheckJSON(raw); err != nil {
		return nil, err
	}
	policy := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &policy); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", errdefs.ErrInvalidArgument)
	}
	p := preparer{ctx, fetch}
	if err := edit(policy, "default", p.list); err != nil {
		return nil, err
	}
	err := edit(policy, "transports", func(transports map[string]json.RawMessage) error {
		for name := range transports {
			if err := edit(transports, name, p.scopes); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(policy)
}

// edit decodes member name of an object, lets change work on it, and puts it
// back. A member that is absent stays so.
func edit[T any](object map[string]json.RawMessage, name string, change func(T) error) error {
	raw, ok := object[name]
	if !ok {
		return nil
	}
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return fmt.Errorf("member %.80q has the wrong type: %w", name, errdefs.ErrInvalidArgument)
	}
	if err := change(v); err != nil {
		return err
	}
	text, err := json.Marshal(v)
	object[name] = text
	return err
}

type preparer struct {
	ctx   context.Context
	fetch Fetch
}

func (p preparer) scopes(scopes map[string]json.RawMessage) error {
	for name := range scopes {
		if err := edit(scopes, name, p.list); err != nil {
			return err
		}
	}
	return nil
}

func (p preparer) list(list []requirement) error {
	for _, r := range list {
		if err := p.requirement(r); err != nil {
			return err
		}
	}
	return nil
}

func (p preparer) requirement(r requirement) error {
	if err := p.inline(r, pathMembers); err != nil {
		return err
	}
	if err := encodePEM(r, "keyData"); err != nil {
		return err
	}
	for _, nested := range []string{"fulcio", "pki"} {
		err := edit(r, nested, func(o map[string]json.RawMessage) error { return p.inline(o, pathMembers) })
		if err != nil {
			return err
		}
	}
	var kind string
	json.Unmarshal(r["type"], &kind)
	if _, named := r["signedIdentity"]; kind == "sigstoreSigned" && !named {
		// cosign signs the repository and not the tag, which the library's own
		// default would refuse. Another repository's signature stays refused.
		r["signedIdentity"] = json.RawMessage(`{"type":"matchRepository"}`)
	}
	return nil
}

// pathMembers lists members that name a file and those that hold its contents.
var pathMembers = [][2]string{
	{"keyPath", "keyData"},
	{"rekorPublicKeyPath", "rekorPublicKeyData"},
	{"caPath", "caData"},
	{"caRootsPath", "caRootsData"},
	{"caIntermediatesPath", "caIntermediatesData"},
	{"keyPaths", "keyDatas"},
	{"rekorPublicKeyPaths", "rekorPublicKeyDatas"},
}

// inline replaces paths that are URIs by the contents. A plain path stays: it
// names a file of the guest image, which is measured as the policy is.
func (p preparer) inline(o map[string]json.RawMessage, members [][2]string) error {
	for _, m := range members {
		raw, ok := o[m[0]]
		if !ok {
			continue
		}
		var one string
		var many []string
		if json.Unmarshal(raw, &one) == nil {
			many = []string{one}
		} else if json.Unmarshal(raw, &many) != nil {
			continue // the library says what is wrong
		}
		data, err := p.contents(many)
		if err != nil {
			return err
		}
		if data == nil {
			continue
		}
		if _, both := o[m[1]]; both {
			return fmt.Errorf("%s and %s exclude each other: %w", m[0], m[1], errdefs.ErrInvalidArgument)
		}
		var value any = data
		if strings.HasSuffix(m[0], "Path") {
			value = data[0]
		}
		delete(o, m[0])
		if o[m[1]], err = json.Marshal(value); err != nil {
			return err
		}
	}
	return nil
}

// contents fetches URIs; nil means that none of the texts is one.
func (p preparer) contents(uris []string) ([][]byte, error) {
	var data [][]byte
	for _, uri := range uris {
		if !strings.HasPrefix(uri, "kbs://") && !strings.HasPrefix(uri, "file://") {
			continue
		}
		text, err := p.fetch(p.ctx, uri)
		if err != nil {
			return nil, fmt.Errorf("fetch key %s: %w", uri, err)
		}
		data = append(data, text)
	}
	if data != nil && len(data) != len(uris) {
		return nil, fmt.Errorf("keys by path and by URI in one list: %w", errdefs.ErrInvalidArgument)
	}
	return data, nil
}

// encodePEM accepts a key as PEM text where the library wants it in base64.
func encodePEM(r requirement, member string) error {
	var text string
	if json.Unmarshal(r[member], &text) != nil || !bytes.HasPrefix([]byte(strings.TrimSpace(text)), []byte("-----BEGIN ")) {
		return nil
	}
	encoded, err := json.Marshal(base64.StdEncoding.EncodeToString([]byte(text)))
	r[member] = encoded
	return err
}
