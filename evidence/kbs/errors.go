package kbs

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/coffer-cc/coffer/evidence"
)

// fault is an error with a text of its own and a class for errors.Is.
type fault struct {
	text  string
	class error
}

func (f *fault) Error() string { return f.text }
func (f *fault) Unwrap() error { return f.class }

// Errors of a broker. Their texts are short and stay as they are, since they
// reach the shim and its users; what the broker itself said does not, as the
// host reads along.
var (
	// ErrDenied: the broker's policy refuses this guest the resource. Final.
	ErrDenied error = &fault{"kbs policy denies the resource", errdefs.ErrPermissionDenied}
	// ErrNotFound: the broker cannot produce the resource. Final.
	ErrNotFound error = &fault{"kbs has no such resource", errdefs.ErrNotFound}
	// ErrAttestation: the broker did not accept the evidence, several times.
	ErrAttestation error = &fault{"kbs refuses the attestation", errdefs.ErrUnauthenticated}
	// ErrSession: the broker does not accept the session it just gave out.
	ErrSession error = &fault{"kbs rejects its own session", errdefs.ErrUnauthenticated}
	// ErrIssuer: a development broker answers a guest on a real platform.
	ErrIssuer error = &fault{"kbs is a development broker", errdefs.ErrPermissionDenied}
	// ErrUnreachable: no answer, or none in time, after several attempts.
	ErrUnreachable error = &fault{"kbs unreachable", errdefs.ErrUnavailable}
	// ErrReply: an answer that is not what was asked for.
	ErrReply error = &fault{"kbs sent a malformed reply", errdefs.ErrDataLoss}
	// ErrWrap: the broker cannot wrap resources for the key of this guest,
	// because tee_key_algorithm names one that it was not built for. Final.
	ErrWrap error = &fault{"kbs cannot wrap for this key algorithm", errdefs.ErrFailedPrecondition}
	// ErrFault: the broker reports an error that none of the others covers.
	ErrFault error = &fault{"kbs reports a fault", errdefs.ErrInternal}
)

// errFinal is ErrUnreachable where another attempt would end the same way.
var errFinal error = &fault{"kbs unreachable", ErrUnreachable}

// errProxy is a proxy that answers something other than that the way is open.
var errProxy = errors.New("refused by the proxy")

// errorPrefix begins the type of every error that a broker reports.
const errorPrefix = "https://github.com/confidential-containers/kbs/errors/"

// maxKind bounds the word that follows.
const maxKind = 40

// unreachable names the cause of a failed exchange in fixed words: the text of
// a network error may hold what the other side sent.
func unreachable(err error) error {
	code, cause := evidence.TransportConnection, "connection failed"
	var (
		timeout interface{ Timeout() bool }
		dns     *net.DNSError
		cert    *tls.CertificateVerificationError
		record  tls.RecordHeaderError
		alert   tls.AlertError
		hop     *net.OpError
	)
	switch {
	case errors.As(err, &hop) && hop.Op == "proxyconnect", errors.Is(err, errProxy):
		code, cause = evidence.TransportProxy, "the proxy fails"
	case errors.As(err, &dns):
		code, cause = evidence.TransportDNS, "name not resolved"
	case errors.Is(err, unix.ECONNREFUSED):
		code, cause = evidence.TransportRefused, "connection refused"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		code, cause = evidence.TransportTimeout, "timed out"
	case errors.As(err, &cert):
		return evidence.TransportCertificate.Wrap(fmt.Errorf("%w: certificate not trusted", errFinal))
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record), errors.As(err, &alert):
		return evidence.TransportTLS.Wrap(fmt.Errorf("%w: no TLS", errFinal))
	}
	return code.Wrap(fmt.Errorf("%w: %s", ErrUnreachable, cause))
}

// malformed is ErrReply with what is wrong in fixed words.
func malformed(code evidence.Code, what string) error {
	return code.Wrap(fmt.Errorf("%w: %s", ErrReply, what))
}

// refusalOf knows the types of error that Trustee's broker sends to guests. It
// answers 401 to nearly everything; only the type tells a denial, which is
// final, from an expired session, which is not. What concerns its own start and
// its administrators is not here and becomes ErrFault.
func refusalOf(kind string) error {
	switch kind {
	case "PolicyDeny":
		return evidence.PolicyDenied.Wrap(ErrDenied)
	case "PluginInternalError", "PluginNotFound":
		return evidence.ResourceAbsent.Wrap(ErrNotFound)
	case "TokenNotFound", "TokenVerifierError":
		return evidence.VerdictSession.Wrap(ErrSession)
	case "AttestationError":
		return evidence.VerdictRefused.Wrap(ErrAttestation)
	case "JweError":
		return evidence.ResourceWrap.Wrap(ErrWrap)
	case "InvalidRequestPath":
		return evidence.TransportReply.Wrap(fmt.Errorf("%w: InvalidRequestPath, which the configured URL may cause", ErrFault))
	case "PolicyEngineError", "ParsePolicyError":
		return evidence.PolicyBroken.Wrap(fmt.Errorf("%w: %s, so its own policy is broken", ErrFault, kind))
	}
	return nil
}

// refusal turns a reply that is not 200 into an error.
func refusal(status int, body []byte) error {
	kind := errorKind(body)
	if err := refusalOf(kind); err != nil {
		return err
	}
	switch {
	case status >= http.StatusInternalServerError, status == http.StatusTooManyRequests:
		return evidence.TransportBusy.Wrap(fmt.Errorf("%w: status %d", ErrUnreachable, status))
	case kind != "":
		return evidence.VerdictFault.Wrap(fmt.Errorf("%w: %s", ErrFault, kind))
	}
	return evidence.TransportReply.Wrap(fmt.Errorf("%w: status %d", ErrFault, status))
}

// errorKind returns the last word of the error's type, or "" for a body that
// no broker wrote. A word is a few letters, so it cannot garble a log.
func errorKind(body []byte) string {
	var info struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(body, &info) != nil {
		return ""
	}
	kind, ok := strings.CutPrefix(info.Type, errorPrefix)
	letter := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
	if !ok || len(kind) > maxKind || strings.ContainsFunc(kind, func(r rune) bool { return !letter(r) }) {
		return ""
	}
	return kind
}

// retryable reports whether another attempt may end better.
func retryable(err error) bool {
	return errors.Is(err, ErrUnreachable) && !errors.Is(err, errFinal) || errors.Is(err, ErrAttestation)
}
