// Package workload is the HTTP interface through which the containers of the
// pod ask the guest for resources, with the paths of the reference guest:
//
//	GET /cdh/resource/<repository>/<type>/<tag>
//
// Every container of the pod shares the loopback interface, so any of them can
// read whatever the key broker's policy grants to this guest.
package workload

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/resource"
	"github.com/coffer-cc/coffer/evidence/secret"
)

// resourceTimeout bounds one resource, attestation included.
const resourceTimeout = 50 * time.Second

// Resources gives out resources of the key broker. A broker.Broker fits.
type Resources interface {
	Resource(ctx context.Context, u resource.URI) (secret.Bytes, error)
}

// Deps is what the interface stands on.
type Deps struct {
	Resources Resources // nil switches resources off
	// Own is the User-Agent of this program's own requests, which are refused: a
	// hostile registry could send the image puller here, and be told what it got.
	Own string
}

// New returns the handler. Callers that are not on this machine are refused,
// whatever address it is served on.
func New(d Deps) http.Handler {
	h := handler{d}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !fromLoopback(r):
			answer(w, http.StatusForbidden, "Forbidden")
		case d.Own != "" && r.UserAgent() == d.Own:
			slog.WarnContext(r.Context(), "a registry sends the image puller to the workload API", "path", r.URL.Path)
			answer(w, http.StatusForbidden, "Forbidden")
		case r.ContentLength != 0:
			answer(w, http.StatusRequestEntityTooLarge, "Request Has A Body")
		default:
			h.route(w, r)
		}
	})
}

type handler struct{ Deps }

// route answers as the reference guest does, except that only GET is served.
func (h handler) route(w http.ResponseWriter, r *http.Request) {
	path, isResource := strings.CutPrefix(r.URL.Path, "/cdh/resource/")
	switch {
	case strings.HasPrefix(r.URL.Path, "/aa/"):
		answer(w, http.StatusNotFound, "Attestation Feature Not Enabled")
	case strings.HasPrefix(r.URL.Path, "/cdh/") && h.Resources == nil:
		answer(w, http.StatusNotFound, "Resource Feature Not Enabled")
	case !isResource:
		answer(w, http.StatusNotFound, "URL NOT FOUND")
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		answer(w, http.StatusMethodNotAllowed, "Method Not Allowed")
	default:
		h.resource(w, r, path)
	}
}

func (h handler) resource(w http.ResponseWriter, r *http.Request, path string) {
	u, err := resource.ParsePath(path)
	if err != nil {
		answer(w, http.StatusNotFound, "URL NOT FOUND")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), resourceTimeout)
	defer cancel()
	b, err := h.Resources.Resource(ctx, u)
	if err != nil {
		slog.WarnContext(ctx, "workload got no resource", "resource", u.String(), "error", err)
		answer(w, http.StatusInternalServerError, reason(err))
		return
	}
	defer b.Wipe()
	slog.InfoContext(ctx, "workload got a resource", "resource", u.String())
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(b)
}

// reason puts an error into a few fixed words and its code: a container learns
// what to do and nothing about the way there.
func reason(err error) string {
	if code := evidence.CodeOf(err); code != "" {
		return class(err) + " (" + string(code) + ")"
	}
	return class(err)
}

func class(err error) string {
	switch {
	case errdefs.IsPermissionDenied(err):
		return "resource denied by the key broker"
	case errdefs.IsUnauthorized(err):
		return "attestation refused by the key broker"
	case errdefs.IsNotFound(err):
		return "no such resource"
	case errdefs.IsUnavailable(err):
		return "key broker unreachable"
	case errdefs.IsFailedPrecondition(err):
		return "no key broker"
	}
	return "internal error"
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// fromLoopback reports whether the peer is on this machine.
func fromLoopback(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
