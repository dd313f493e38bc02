package main

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// trustFlags say whom evidence is judged by, and when.
type trustFlags struct {
	vek, root, at, tokenKey string
	collateral              []string
}

func (t *trustFlags) register(fl *pflag.FlagSet) {
	fl.StringVar(&t.vek, "vek", "", "`FILE` with the VCEK or VLEK of a raw report, in DER or PEM")
	fl.StringVar(&t.root, "root", "", "PEM `FILE` to trust instead of the vendor's root: a root for TDX and tokens; ASK and ARK for SNP")
	fl.StringVar(&t.at, "at", "", "`TIME` of the judgement, as 2026-01-31 or 2026-01-31T12:00:00Z, instead of now")
	fl.StringVar(&t.tokenKey, "token-key", "", "PEM `FILE` with the public keys or certificates of a token's broker")
	fl.StringArrayVar(&t.collateral, "collateral", nil, "`PATH` of a file, or folder of files, that the vendors publish; repeatable")
}

func (t *trustFlags) now() (at time.Time, err error) {
	if t.at == "" {
		return at, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if at, err = time.Parse(layout, t.at); err == nil {
			return at, nil
		}
	}
	return at, usagef("--at %q is not a time like 2026-01-31 or 2026-01-31T12:00:00Z", t.at)
}

func (t *trustFlags) options(f *verify.File) (o verify.Options, err error) {
	if o.Now, err = t.now(); err != nil {
		return o, err
	}
	if o.Collateral, err = readCollateral(t.collateral); err != nil || t.root == "" {
		return o, err
	}
	if f.Kind() == evidence.TDX || f.Kind() == evidence.AzTDX {
		o.TDXRoots, err = readTDXRoot(t.root)
	} else {
		o.SNPRoots, err = readSNPRoots(t.root)
	}
	return o, err
}

// readTDXRoot trusts the last certificate of the file, which may hold a chain.
func readTDXRoot(name string) (*x509.CertPool, error) {
	certs, err := readCerts(name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(certs[len(certs)-1])
	return pool, nil
}

// readSNPRoots takes the two certificates for those of every processor.
func readSNPRoots(name string) ([]verify.SNPChain, error) {
	certs, err := readCerts(name)
	if err != nil {
		return nil, err
	}
	if len(certs) != 2 {
		return nil, usagef("%s: SNP needs two certificates, ASK and ARK in this order", name)
	}
	var chains []verify.SNPChain
	for _, product := range []string{"Milan", "Genoa", "Turin"} {
		for _, kind := range []string{"VCEK", "VLEK"} {
			chains = append(chains, verify.SNPChain{Product: product, Kind: kind, Between: certs[0], Root: certs[1]})
		}
	}
	return chains, nil
}

// readCollateral is nil without paths. A file in a folder that is no
// collateral is an error: it was put there for something.
func readCollateral(paths []string) (*verify.Collateral, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	c := new(verify.Collateral)
	for _, path := range paths {
		files, err := filesOf(path)
		if err != nil {
			return nil, err
		}
		for _, name := range files {
			data, err := readBounded(name)
			if err != nil {
				return nil, err
			}
			if err := c.Add(data); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return c, nil
}

// filesOf are those in a folder, or the path itself. An empty folder is an error.
func filesOf(path string) (files []string, err error) {
	if st, err := os.Stat(path); err != nil || !st.IsDir() {
		return []string{path}, err
	}
	entries, err := os.ReadDir(path)
	for _, e := range entries {
		files = append(files, filepath.Join(path, e.Name()))
	}
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("folder %s is empty: %w", path, errdefs.ErrNotFound)
	}
	return files, err
}

// endorsement is the certificate of an SNP report's key, from its own flag or
// among the collateral.
func (t *trustFlags) endorsement(c *verify.Collateral) (certs verify.Certs, err error) {
	if t.vek != "" {
		list, err := readCerts(t.vek)
		if err != nil {
			return certs, err
		}
		certs.VEK = list[0].Raw
		return certs, nil
	}
	if c == nil {
		return certs, nil
	}
	for _, cert := range c.Certificates() {
		if name := cert.Subject.CommonName; name == "SEV-VCEK" || name == "SEV-VLEK" {
			certs.VEK = cert.Raw
		}
	}
	return certs, nil
}

// token is whom a token is verified by.
func (t *trustFlags) token() (trust verify.TokenTrust, err error) {
	if trust.Now, err = t.now(); err != nil {
		return trust, err
	}
	if t.tokenKey == "" && t.root == "" {
		return trust, usagef("a token needs --token-key or --root")
	}
	if t.tokenKey != "" {
		if trust.Keys, err = readKeys(t.tokenKey); err != nil {
			return trust, err
		}
	}
	if t.root != "" {
		certs, err := readCerts(t.root)
		if err != nil {
			return trust, err
		}
		trust.Roots = x509.NewCertPool()
		for _, c := range certs {
			trust.Roots.AddCert(c)
		}
	}
	return trust, nil
}

// readKeys reads public keys and certificates in PEM.
func readKeys(name string) ([]crypto.PublicKey, error) {
	data, err := readBounded(name)
	if err != nil {
		return nil, err
	}
	var keys []crypto.PublicKey
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		var key crypto.PublicKey
		if strings.HasSuffix(block.Type, "CERTIFICATE") {
			var c *x509.Certificate
			if c, err = x509.ParseCertificate(block.Bytes); err == nil {
				key = c.PublicKey
			}
		} else {
			key, err = x509.ParsePKIXPublicKey(block.Bytes)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, usagef("%s holds no public key in PEM", name)
	}
	return keys, nil
}

// readCerts reads one certificate in DER or any number in PEM.
func readCerts(name string) ([]*x509.Certificate, error) {
	data, err := readBounded(name)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		certs = append(certs, c)
	}
	if len(certs) > 0 {
		return certs, nil
	}
	c, err := x509.ParseCertificate(data)
	if err != nil {
		return nil, fmt.Errorf("%s holds no certificate: %w", name, err)
	}
	return []*x509.Certificate{c}, nil
}
