package tee

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/containerd/errdefs"
)

// imdsURL is Azure's instance metadata service, a part of the host.
const imdsURL = "http://169.254.169.254"

// Bounds of an exchange with it.
const (
	imdsTime    = 20 * time.Second // a quote takes about one
	imdsDial    = 5 * time.Second
	imdsBackoff = 500 * time.Millisecond
	imdsTries   = 3
	maxIMDS     = 256 << 10 // certificates are 6 KiB, a quote 8
	maxVCEK     = 16 << 10
)

// imds asks the metadata service for what a guest cannot make itself: the
// certificate of the chip, and a quote for a TDREPORT. It is safe for concurrent use.
type imds struct {
	base    string
	backoff time.Duration
	http    *http.Client
}

// newIMDS goes to the service directly, whatever proxies the guest is to use,
// and follows no redirect: a service that sends the guest elsewhere would reach
// what only the guest can.
func newIMDS(base string) imds {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return imds{base: base, backoff: imdsBackoff, http: &http.Client{
		Timeout:       imdsTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: imdsDial}).DialContext,
			MaxResponseHeaderBytes: 16 << 10,
			DisableKeepAlives:      true, // a connection for a handshake now and then
			DisableCompression:     true,
			Protocols:              &protocols,
		},
	}}
}

// vcek fetches the certificate of the key that signs the chip's reports, in DER.
func (m imds) vcek(ctx context.Context) ([]byte, error) {
	var answer struct {
		VCEK string `json:"vcekCert"`
	}
	if err := m.ask(ctx, http.MethodGet, "/metadata/THIM/amd/certification", nil, &answer); err != nil {
		return nil, fmt.Errorf("fetch the VCEK: %w", err)
	}
	block, _ := pem.Decode([]byte(answer.VCEK))
	if block == nil || block.Type != "CERTIFICATE" || len(block.Bytes) > maxVCEK {
		return nil, fmt.Errorf("fetch the VCEK: answer holds no certificate: %w", errdefs.ErrDataLoss)
	}
	return block.Bytes, nil
}

// quote has the host's quoting enclave sign for a TDREPORT.
func (m imds) quote(ctx context.Context, report []byte) ([]byte, error) {
	body, err := json.Marshal(map[string]string{"report": base64.RawURLEncoding.EncodeToString(report)})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Quote string `json:"quote"`
	}
	if err := m.ask(ctx, http.MethodPost, "/acc/tdquote", body, &answer); err != nil {
		return nil, fmt.Errorf("ask for a quote: %w", err)
	}
	quote, err := base64.RawURLEncoding.DecodeString(string(bytes.TrimRight([]byte(answer.Quote), "=")))
	if err != nil || len(quote) == 0 {
		return nil, fmt.Errorf("ask for a quote: answer holds none: %w", errdefs.ErrDataLoss)
	}
	return quote, nil
}

// errBusy marks an answer that may be another one later.
var errBusy = errors.New("try again later")

// ask sends one request, again where the service says that it is busy. What the
// service says besides never reaches an error, as the host reads along.
func (m imds) ask(ctx context.Context, method, path string, body []byte, into any) error {
	for n, pause := 1, m.backoff; ; n, pause = n+1, 2*pause {
		text, err := m.do(ctx, method, path, body)
		if err == nil {
			if json.Unmarshal(text, into) != nil {
				return fmt.Errorf("metadata service sent a malformed answer: %w", errdefs.ErrDataLoss)
			}
			return nil
		}
		if !errors.Is(err, errBusy) || n == imdsTries {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

func (m imds) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, m.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Metadata", "true")
	req.Header.Set("User-Agent", "coffer")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := m.http.Do(req)
	if err != nil {
		return nil, silent(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, refused(resp.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxIMDS+1))
	switch {
	case err != nil:
		return nil, silent(ctx, err)
	case len(text) > maxIMDS:
		return nil, fmt.Errorf("metadata service sent more than %d bytes: %w", maxIMDS, errdefs.ErrDataLoss)
	}
	return text, nil
}

// refused names a status. The service documents 410 and 429, and servers
// themselves 5xx, as passing.
func refused(status int) error {
	err := fmt.Errorf("metadata service answers with status %d: %w", status, errdefs.ErrUnavailable)
	if status >= 500 || slices.Contains([]int{http.StatusGone, http.StatusTooManyRequests}, status) {
		return fmt.Errorf("%w: %w", errBusy, err)
	}
	return err
}

// silent names the cause of a failed exchange in fixed words.
func silent(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	cause := "connection failed"
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		cause = "timed out"
	}
	return fmt.Errorf("metadata service at 169.254.169.254: %s: %w", cause, errdefs.ErrUnavailable)
}

// sleep waits, but not beyond ctx.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
