package decrypt

import (
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/containers/ocicrypt/blockcipher"
)

// Reader returns the plaintext of the ciphertext in r. io.EOF means that the
// HMAC over all of it was right; until then the plaintext is anybody's, and
// whatever is made of it must be possible to throw away.
func (k *Key) Reader(r io.Reader) (io.Reader, error) {
	handler, err := blockcipher.NewLayerBlockCipherHandler()
	if err != nil {
		return nil, fmt.Errorf("decrypt layer: %w", err)
	}
	source := &recorder{r: r}
	plain, _, err := handler.Decrypt(source, k.options)
	if err != nil {
		return nil, fmt.Errorf("decrypt layer: %w", err)
	}
	return &verified{source, plain}, nil
}

// recorder remembers how the ciphertext ended.
type recorder struct {
	r   io.Reader
	err error
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil {
		r.err = err
	}
	return n, err
}

// verified tells a wrong HMAC from an end of the ciphertext's own. The
// library's text for the former holds both values and is dropped.
type verified struct {
	source *recorder
	plain  io.Reader
}

func (v *verified) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil // the library would take it for the end
	}
	n, err := v.plain.Read(p)
	switch {
	case err == nil, err == io.EOF:
		return n, err
	case v.source.err != nil && !errors.Is(v.source.err, io.EOF):
		return n, v.source.err
	}
	return 0, fmt.Errorf("layer's HMAC is wrong, it was changed or is opened with another key: %w", errdefs.ErrDataLoss)
}
