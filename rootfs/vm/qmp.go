package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// A monitor speaks QMP, QEMU's own protocol (docs/interop/qmp-spec.rst): one
// JSON object after the other, replies in the order of the commands, events in
// between. Its methods may be called concurrently.
type monitor struct {
	conn net.Conn
	in   *json.Decoder

	turn sync.Mutex // held for one command and its reply

	replies chan qmpMessage // holds one, so that a caller who gave up stops nobody
	done    chan struct{}   // closed when the connection ended

	mu      sync.Mutex    // guards the rest
	events  []qmpMessage  // all of them: a machine in a test has few
	changed chan struct{} // closed and replaced at each event
}

// qmpMessage is a reply or an event.
type qmpMessage struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
}

// monitorTimeout is for QEMU to open its socket; it does so before it starts
// the guest.
const monitorTimeout = 10 * time.Second

func dialMonitor(ctx context.Context, path string) (*monitor, error) {
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	conn, err := patientDial(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("dial monitor: %w", err)
	}
	m := &monitor{conn: conn, in: json.NewDecoder(conn),
		replies: make(chan qmpMessage, 1), done: make(chan struct{}), changed: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	var greeting struct{ QMP json.RawMessage }
	if err := m.in.Decode(&greeting); err != nil || greeting.QMP == nil {
		conn.Close()
		return nil, fmt.Errorf("read greeting of the monitor: %w", errors.Join(err, ctx.Err()))
	}
	stop()
	go m.read()
	if err := m.execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		conn.Close()
		return nil, err
	}
	return m, nil
}

// patientDial tries until somebody listens.
func patientDial(ctx context.Context, path string) (net.Conn, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil {
			return conn, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// close ends the connection and the goroutine that reads it.
func (m *monitor) close() {
	m.conn.Close()
	<-m.done
}

// read sorts what arrives until the connection ends.
func (m *monitor) read() {
	defer close(m.done)
	for {
		var got qmpMessage
		if err := m.in.Decode(&got); err != nil {
			return
		}
		if got.Event == "" {
			m.replies <- got
			continue
		}
		m.mu.Lock()
		m.events = append(m.events, got)
		close(m.changed)
		m.changed = make(chan struct{})
		m.mu.Unlock()
	}
}

// execute runs one command and decodes what it returns into result, which may
// be nil. A caller that gives up ends the connection: its reply would be taken
// for the next command's.
func (m *monitor) execute(ctx context.Context, command string, arguments, result any) error {
	m.turn.Lock()
	defer m.turn.Unlock()
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := json.NewEncoder(m.conn).Encode(request); err != nil {
		return fmt.Errorf("send %s to the monitor: %w", command, err)
	}
	select {
	case got := <-m.replies:
		if got.Error != nil {
			return fmt.Errorf("%s: %s: %s: %w", command, got.Error.Class, got.Error.Desc, errdefs.ErrFailedPrecondition)
		}
		if result == nil {
			return nil
		}
		if err := json.Unmarshal(got.Return, result); err != nil {
			return fmt.Errorf("decode reply to %s: %w", command, err)
		}
		return nil
	case <-m.done:
		return fmt.Errorf("%s: the monitor is gone: %w", command, io.ErrUnexpectedEOF)
	case <-ctx.Done():
		m.conn.Close()
		return fmt.Errorf("%s: %w", command, ctx.Err())
	}
}

// wait returns when an event that match accepts has happened, also in the past.
func (m *monitor) wait(ctx context.Context, what string, match func(event string, data json.RawMessage) bool) error {
	for next := 0; ; {
		m.mu.Lock()
		for ; next < len(m.events); next++ {
			if e := m.events[next]; match(e.Event, e.Data) {
				m.mu.Unlock()
				return nil
			}
		}
		changed := m.changed
		m.mu.Unlock()
		select {
		case <-changed:
		case <-m.done:
			return fmt.Errorf("wait for %s: the monitor is gone: %w", what, io.ErrUnexpectedEOF)
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		}
	}
}
