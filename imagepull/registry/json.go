package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// maxDepth bounds the nesting of documents from outside.
const maxDepth = 64

// CheckJSON refuses a document that two readers could take for different
// things: with a key twice in one object, with keys on the top level that
// differ in case alone, since encoding/json takes either for the same field,
// or with something behind its end. It bounds the nesting too.
func CheckJSON(raw []byte) error {
	c := jsonChecker{json.NewDecoder(bytes.NewReader(raw))}
	c.UseNumber()
	if err := c.value(0); err != nil {
		return fmt.Errorf("%s: %w", err.Error(), errdefs.ErrInvalidArgument)
	}
	if c.More() {
		return fmt.Errorf("text behind the JSON document: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

type jsonChecker struct{ *json.Decoder }

func (c jsonChecker) value(depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("JSON nested deeper than %d", maxDepth)
	}
	token, err := c.Token()
	if err != nil {
		return fmt.Errorf("malformed JSON")
	}
	switch token {
	case json.Delim('{'):
		return c.object(depth)
	case json.Delim('['):
		for c.More() {
			if err := c.value(depth + 1); err != nil {
				return err
			}
		}
		return c.end()
	}
	return nil
}

func (c jsonChecker) object(depth int) error {
	seen := map[string]bool{}
	for c.More() {
		token, err := c.Token()
		if err != nil {
			return fmt.Errorf("malformed JSON")
		}
		key, _ := token.(string)
		same := key
		if depth == 0 {
			same = strings.ToLower(key)
		}
		if seen[same] {
			return fmt.Errorf("JSON key %.80q twice", key)
		}
		seen[same] = true
		if err := c.value(depth + 1); err != nil {
			return err
		}
	}
	return c.end()
}

func (c jsonChecker) end() error {
	if _, err := c.Token(); err != nil {
		return fmt.Errorf("malformed JSON")
	}
	return nil
}
