package devkbs

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/coffer-cc/coffer/evidence"
)

const (
	cookieName = "kbs-session-id"
	// maxSessions bounds the memory that callers can take; the oldest goes.
	maxSessions = 1024
)

// session is one handshake. Before the attestation proof is nil.
type session struct {
	id      string
	tee     evidence.Kind
	nonce   string
	expires time.Time
	proof   *proof
}

// open starts a session with a fresh nonce.
func (s *Server) open(tee evidence.Kind) *session {
	var random [48]byte
	_, _ = rand.Read(random[:]) // never fails
	now := time.Now()
	n := &session{
		id:      hex.EncodeToString(random[:16]),
		tee:     tee,
		nonce:   base64.StdEncoding.EncodeToString(random[16:]),
		expires: now.Add(s.options.Lifetime),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.makeRoomLocked(now)
	s.sessions[n.id] = n
	return n
}

// makeRoomLocked removes what has expired, and the oldest session if that was
// not enough.
func (s *Server) makeRoomLocked(now time.Time) {
	if len(s.sessions) < maxSessions {
		return
	}
	var oldest *session
	for id, o := range s.sessions {
		if now.After(o.expires) {
			delete(s.sessions, id)
		} else if oldest == nil || o.expires.Before(oldest.expires) {
			oldest = o
		}
	}
	if len(s.sessions) >= maxSessions {
		delete(s.sessions, oldest.id)
	}
}

// lookup returns a copy of the session the request belongs to.
func (s *Server) lookup(r *http.Request) (session, bool) {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return session{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.sessions[c.Value]
	if found == nil || time.Now().After(found.expires) {
		delete(s.sessions, c.Value)
		return session{}, false
	}
	return *found, true
}

// attested is lookup for sessions that have a proof.
func (s *Server) attested(r *http.Request) (session, bool) {
	found, ok := s.lookup(r)
	return found, ok && found.proof != nil
}

// accept ties the proof to the session. The first one stays: a second
// attestation gets the first token, as from Trustee.
func (s *Server) accept(id string, p *proof) (session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.sessions[id]
	if found == nil {
		return session{}, false
	}
	if found.proof == nil {
		found.proof = p
	}
	return *found, true
}

// ExpireSessions ends every session at once, as their time would.
func (s *Server) ExpireSessions() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.sessions)
}

// setCookie tells the session's name with an end and no other attribute.
func (n session) setCookie(w http.ResponseWriter) {
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: n.id, Expires: n.expires})
}
