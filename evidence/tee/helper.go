package tee

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/containerd/errdefs"

	"github.com/coffer-cc/coffer/evidence"
)

// Bounds of a conversation with a helper.
const (
	helperTime  = 60 * time.Second // a GPU with its links takes some seconds
	maxHelper   = 4 << 20          // the statements of eight GPUs are 200 KiB
	maxHelpText = 256
)

// helper is a device whose statements a program of the image makes, because they
// need a vendor's library. It listens on a Unix socket, and each connection is
// one exchange, each side one JSON object and the end of its stream:
//
//	agent                                                helper
//	  | {"version":1,"kind":"nvidia","report_data":"…"}    |   base64, as given
//	  |--------------------------------------------------->|
//	  |      {"evidence":{…}}   or   {"error":"text"}      |
//	  |<---------------------------------------------------|
//
// The evidence is passed on as it is, so its form is the verifier's.
type helper struct {
	kind   evidence.Kind
	socket string
}

// Helper returns the device whose statements come from the program at the
// socket. Nothing is connected before the first statement is asked for.
func Helper(kind evidence.Kind, socket string) evidence.Collector {
	return helper{kind, socket}
}

// Kind is what the configuration says.
func (h helper) Kind() evidence.Kind { return h.kind }

// Collect wraps errdefs.ErrUnavailable where the helper is not there or does not
// answer in time, ErrFailedPrecondition where it reports an error, and
// ErrDataLoss where its answer is none.
func (h helper) Collect(ctx context.Context, rd evidence.ReportData) (evidence.Evidence, error) {
	e, err := h.collect(ctx, rd)
	return e, evidence.DriverHelper.Wrap(err)
}

func (h helper) collect(ctx context.Context, rd evidence.ReportData) (evidence.Evidence, error) {
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	text, err := h.exchange(ctx, rd)
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("helper %s: %w: %w", h.socket, errdefs.ErrUnavailable, err)
	}
	data, err := helperStatement(text)
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("helper %s: %w", h.socket, err)
	}
	return evidence.Evidence{Kind: h.kind, Data: data}, nil
}

// helperStatement takes the evidence out of an answer, as an object of JSON.
func helperStatement(text []byte) (json.RawMessage, error) {
	var reply struct {
		Evidence json.RawMessage `json:"evidence"`
		Error    string          `json:"error"`
	}
	err := json.Unmarshal(text, &reply)
	switch {
	case err == nil && reply.Error != "":
		return nil, fmt.Errorf("%.*q: %w", maxHelpText, reply.Error, errdefs.ErrFailedPrecondition)
	case err != nil || !bytes.HasPrefix(bytes.TrimSpace(reply.Evidence), []byte("{")):
		return nil, fmt.Errorf("answer without evidence: %w", errdefs.ErrDataLoss)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, reply.Evidence); err != nil {
		return nil, errdefs.ErrDataLoss
	}
	return compact.Bytes(), nil
}

func (h helper) exchange(ctx context.Context, rd evidence.ReportData) ([]byte, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", h.socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err = json.NewEncoder(conn).Encode(struct {
		Version    int           `json:"version"`
		Kind       evidence.Kind `json:"kind"`
		ReportData []byte        `json:"report_data"`
	}{1, h.kind, rd.Bytes()})
	if err == nil {
		err = conn.(*net.UnixConn).CloseWrite()
	}
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(conn, maxHelper+1))
	if err == nil && len(text) > maxHelper {
		err = errors.New("answer is too long")
	}
	if err == nil && len(text) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return text, err
}
