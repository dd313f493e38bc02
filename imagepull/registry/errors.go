package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containers/image/v5/docker"
	"github.com/docker/distribution/registry/api/errcode"
)

// Explain turns an error of the library into one short line with a class:
//
//	401 unauthorized   ErrUnauthenticated    404 not found    ErrNotFound
//	403 forbidden      ErrPermissionDenied   429, 5xx, net    ErrUnavailable
//	certificate        ErrFailedPrecondition
//
// The library's text is dropped where a class is found: it repeats the body of
// the answer, which is the registry's own, and URLs whose query may be a token.
func Explain(err error) error {
	var (
		transport   *url.Error
		network     net.Error
		certificate *tls.CertificateVerificationError
	)
	switch status := statusOf(err); {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case status == http.StatusUnauthorized:
		return fmt.Errorf("registry answers unauthorized (401): %w", errdefs.ErrUnauthenticated)
	case status == http.StatusForbidden:
		return fmt.Errorf("registry answers forbidden (403): %w", errdefs.ErrPermissionDenied)
	case status == http.StatusNotFound:
		return fmt.Errorf("registry answers not found (404): %w", errdefs.ErrNotFound)
	case status == http.StatusTooManyRequests, status >= 500:
		return fmt.Errorf("registry answers unavailable (%d): %w", status, errdefs.ErrUnavailable)
	case status != 0:
		return fmt.Errorf("registry answers with status %d: %w", status, errdefs.ErrUnknown)
	case errors.As(err, &certificate):
		return fmt.Errorf("registry's certificate is not trusted: %w: %w", certificate.Err, errdefs.ErrFailedPrecondition)
	case errors.As(err, &transport):
		return &connectionError{transport.Err}
	case errors.As(err, &network):
		return &connectionError{network}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &connectionError{io.ErrUnexpectedEOF}
	case strings.Contains(err.Error(), "exceeded maximum allowed size"):
		return fmt.Errorf("registry's answer is too long: %w: %w", err, errdefs.ErrResourceExhausted)
	case strings.Contains(err.Error(), "decoding bearer token"):
		// The text quotes the answer, which may well be a token of another form.
		return fmt.Errorf("registry's token server does not answer with a token: %w", errdefs.ErrUnauthenticated)
	}
	return err
}

// connectionError is a failure below HTTP.
type connectionError struct{ err error }

func (e *connectionError) Error() string {
	return "connection to registry failed: " + e.err.Error()
}

func (e *connectionError) Unwrap() []error { return []error{errdefs.ErrUnavailable, e.err} }

// statusOf finds the HTTP status in an error of the library, or 0.
func statusOf(err error) int {
	var (
		plain       docker.UnexpectedHTTPStatusError
		credentials docker.ErrUnauthorizedForCredentials
		coded       errcode.ErrorCoder
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &plain):
		return plain.StatusCode
	case errors.As(err, &credentials):
		return http.StatusUnauthorized
	case errors.Is(err, docker.ErrTooManyRequests):
		return http.StatusTooManyRequests
	}
	if errors.As(err, &coded) {
		if code := coded.ErrorCode(); code != errcode.ErrorCodeUnknown {
			return code.Descriptor().HTTPStatusCode
		}
	}
	return statusInText(err.Error())
}

// statusInText reads the status that the library keeps in the text alone when
// the answer's body is not the JSON of the specification.
func statusInText(text string) int {
	const mark = "StatusCode: "
	i := strings.Index(text, mark)
	if i < 0 {
		return 0
	}
	status := 0
	if _, err := fmt.Sscanf(text[i+len(mark):], "%d", &status); err != nil {
		return 0
	}
	return status
}

// transient tells whether the same request may succeed later.
func transient(err error) bool {
	return errdefs.IsUnavailable(err) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}
