package evidencetest

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	snptest "github.com/google/go-sev-guest/testing"
)

// snpFile is a processor of AMD in a file.
type snpFile struct {
	Version, VMPL               uint32
	ExtraCerts                  int
	HostData, Measurement, Chip []byte
	Debug, NoCerts              bool
	Key, VCEK, Between, Root    []byte // PKCS #8, and certificates in DER
}

// MarshalJSON writes what the processor is, with its key.
func (s *SNP) MarshalJSON() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(s.signer.Keys.Vcek)
	if err != nil {
		return nil, err
	}
	return json.Marshal(snpFile{
		s.Version, s.VMPL, s.ExtraCerts, s.HostData[:], s.Measurement[:], s.signer.HWID[:], s.Debug, s.NoCerts,
		key, s.signer.Vcek.Raw, s.signer.Ask.Raw, s.signer.Ark.Raw,
	})
}

// UnmarshalJSON becomes the processor.
func (s *SNP) UnmarshalJSON(text []byte) error {
	var f snpFile
	if err := json.Unmarshal(text, &f); err != nil {
		return err
	}
	key, err := ecdsaKey(f.Key)
	if err != nil {
		return err
	}
	signer := &snptest.AmdSigner{Keys: &snptest.AmdKeys{Vcek: key}}
	for der, to := range map[*[]byte]**x509.Certificate{&f.VCEK: &signer.Vcek, &f.Between: &signer.Ask, &f.Root: &signer.Ark} {
		if *to, err = x509.ParseCertificate(*der); err != nil {
			return err
		}
	}
	*s = SNP{Version: f.Version, VMPL: f.VMPL, Debug: f.Debug, NoCerts: f.NoCerts, ExtraCerts: f.ExtraCerts, signer: signer}
	return errors.Join(fill(s.HostData[:], f.HostData), fill(s.Measurement[:], f.Measurement), fill(signer.HWID[:], f.Chip))
}

// tdxFile is a platform of Intel in a file.
type tdxFile struct {
	Version          uint16
	MRTD, MRConfigID []byte
	RTMR             [][]byte
	Debug            bool
	PCK, Key         []byte // PKCS #8
	Chain            []byte // PEM
}

// MarshalJSON writes what the platform is, with its keys.
func (p *TDX) MarshalJSON() ([]byte, error) {
	pck, err := x509.MarshalPKCS8PrivateKey(p.pck)
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return nil, err
	}
	f := tdxFile{Version: p.Version, MRTD: p.MRTD[:], MRConfigID: p.MRConfigID[:], Debug: p.Debug, PCK: pck, Key: key, Chain: p.chain}
	for _, r := range p.RTMR {
		f.RTMR = append(f.RTMR, r[:])
	}
	return json.Marshal(f)
}

// UnmarshalJSON becomes the platform.
func (p *TDX) UnmarshalJSON(text []byte) error {
	var f tdxFile
	if err := json.Unmarshal(text, &f); err != nil {
		return err
	}
	*p = TDX{Version: f.Version, Debug: f.Debug, chain: f.Chain}
	err := errors.Join(fill(p.MRTD[:], f.MRTD), fill(p.MRConfigID[:], f.MRConfigID))
	for i := range p.RTMR {
		if len(f.RTMR) != len(p.RTMR) {
			return errors.New("registers are missing")
		}
		err = errors.Join(err, fill(p.RTMR[i][:], f.RTMR[i]))
	}
	if err != nil {
		return err
	}
	if p.pck, err = ecdsaKey(f.PCK); err != nil {
		return err
	}
	if p.key, err = ecdsaKey(f.Key); err != nil {
		return err
	}
	last := f.Chain
	for block, rest := pem.Decode(last); block != nil; block, rest = pem.Decode(rest) {
		last = block.Bytes
	}
	p.root, err = x509.ParseCertificate(last)
	return err
}

// ccaFile is a platform of Arm in a file.
type ccaFile struct {
	Personalization, Initial []byte
	Platform, Realm          []byte // PKCS #8
}

// MarshalJSON writes what platform and realm are, with their keys.
func (c *CCA) MarshalJSON() ([]byte, error) {
	platform, err := x509.MarshalPKCS8PrivateKey(c.platform)
	if err != nil {
		return nil, err
	}
	realm, err := x509.MarshalPKCS8PrivateKey(c.realm)
	if err != nil {
		return nil, err
	}
	return json.Marshal(ccaFile{c.Personalization[:], c.Initial[:], platform, realm})
}

// UnmarshalJSON becomes the platform and the realm.
func (c *CCA) UnmarshalJSON(text []byte) (err error) {
	var f ccaFile
	if err := json.Unmarshal(text, &f); err != nil {
		return err
	}
	*c = CCA{}
	if c.platform, err = ecdsaKey(f.Platform); err != nil {
		return err
	}
	if c.realm, err = ecdsaKey(f.Realm); err != nil {
		return err
	}
	return errors.Join(fill(c.Personalization[:], f.Personalization), fill(c.Initial[:], f.Initial))
}

func ecdsaKey(der []byte) (*ecdsa.PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	e, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key is a %T", key)
	}
	return e, nil
}

// fill takes a value of exactly the register's size.
func fill(register, value []byte) error {
	if len(value) != len(register) {
		return fmt.Errorf("%d bytes for a register of %d", len(value), len(register))
	}
	copy(register, value)
	return nil
}
