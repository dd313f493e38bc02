package evidencetest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/sys/unix"
)

// SWTPM is a TPM in software, the program swtpm. Its keys and NV indices stay
// in State, its PCRs last until it is turned off.
type SWTPM struct {
	State  string // directory
	socket string
	cmd    *exec.Cmd
}

// StartSWTPM makes a fresh TPM and turns it on, until the test ends.
func StartSWTPM(t testing.TB) *SWTPM {
	t.Helper()
	s := &SWTPM{State: shortDir(t)}
	s.On(t)
	t.Cleanup(s.Off)
	return s
}

// On turns it on as a machine does that starts: its PCRs are those of a reset.
func (s *SWTPM) On(t testing.TB) {
	t.Helper()
	s.socket = filepath.Join(shortDir(t), "tpm")
	s.cmd = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+s.State,
		"--server", "type=unixio,path="+s.socket, "--flags", "not-need-init,startup-clear")
	s.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("start swtpm (Debian package swtpm): %v", err)
	}
	conn := s.Dial(t)
	conn.Close()
}

// shortDir does not have the test's name in it: swtpm takes a comma for the end
// of a path, and a socket's path has at most 108 bytes.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "swtpm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Off turns it off, without a word to it. It may be off already.
func (s *SWTPM) Off() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		s.cmd = nil
	}
}

// Dial connects to it. It serves one connection after the other.
func (s *SWTPM) Dial(t testing.TB) io.ReadWriteCloser {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", s.socket)
		if err == nil {
			return conn
		}
		select {
		case <-ctx.Done():
			t.Fatalf("swtpm does not listen: %v", errors.Join(err, ctx.Err()))
		case <-time.After(time.Millisecond):
		}
	}
}

// Client speaks to it as a program of its owner does.
func (s *SWTPM) Client(t testing.TB, f func(tpm transport.TPM)) {
	t.Helper()
	conn := s.Dial(t)
	defer conn.Close()
	f(transport.FromReadWriter(conn))
}

// RSAKey is a restricted RSA-2048 signing key for RSASSA with SHA-256, as an
// attestation key is.
var RSAKey = signingKey(tpm2.TPMAlgRSA, tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
	Scheme: tpm2.TPMTRSAScheme{
		Scheme:  tpm2.TPMAlgRSASSA,
		Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256}),
	},
	KeyBits: 2048,
}))

// ECCKey is the same on P-256, for ECDSA.
var ECCKey = signingKey(tpm2.TPMAlgECC, tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
	Scheme: tpm2.TPMTECCScheme{
		Scheme:  tpm2.TPMAlgECDSA,
		Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
	},
	CurveID: tpm2.TPMECCNistP256,
}))

func signingKey(alg tpm2.TPMAlgID, parameters tpm2.TPMUPublicParms) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: alg, NameAlg: tpm2.TPMAlgSHA256, Parameters: parameters,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true,
			Restricted: true, SignEncrypt: true,
		},
	}
}

// AK makes a key and leaves it at the persistent handle.
func (s *SWTPM) AK(t testing.TB, handle uint32, template tpm2.TPMTPublic) {
	t.Helper()
	s.Client(t, func(tpm transport.TPM) {
		key, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template)}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
		defer tpm2.FlushContext{FlushHandle: key.ObjectHandle}.Execute(tpm)
		_, err = tpm2.EvictControl{
			Auth:             tpm2.TPMRHOwner,
			ObjectHandle:     tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name},
			PersistentHandle: tpm2.TPMHandle(handle),
		}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
	})
}

// Evict removes the key at the persistent handle.
func (s *SWTPM) Evict(t testing.TB, handle uint32) {
	t.Helper()
	s.Client(t, func(tpm transport.TPM) {
		key, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(handle)}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tpm2.EvictControl{
			Auth:             tpm2.TPMRHOwner,
			ObjectHandle:     tpm2.NamedHandle{Handle: tpm2.TPMHandle(handle), Name: key.Name},
			PersistentHandle: tpm2.TPMHandle(handle),
		}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
	})
}
