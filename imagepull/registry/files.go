package registry

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/containers/image/v5/pkg/sysregistriesv2"
	"github.com/containers/image/v5/types"
	"gopkg.in/yaml.v3"
)

// files is the private directory that carries configuration to the library,
// which takes paths and not bytes. Each Client has its own, since the library
// caches what it read by path.
type files struct{ dir string }

// maxText bounds one configuration text.
const maxText = 4 << 20

func (f *files) at(name string) string { return filepath.Join(f.dir, name) }

// writeFiles makes the directory; on error it is gone again.
func writeFiles(c Config) (f *files, err error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(c.Dir, "registry-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	f = &files{dir}
	for _, d := range []string{"certs", "registries.d", "conf.d", "empty"} {
		if err := os.Mkdir(f.at(d), 0o700); err != nil {
			return nil, err
		}
	}
	if err := f.writeRoots(c.Roots); err != nil {
		return nil, err
	}
	lookaside, err := lookasideFile(c.Lookaside)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(f.at("registries.d/all.yaml"), lookaside, 0o600); err != nil {
		return nil, err
	}
	conf := c.RegistriesConf
	if len(c.Registries) > 0 {
		if conf, err = registriesFile(c.Registries); err != nil {
			return nil, err
		}
	}
	if len(conf) > maxText {
		return nil, fmt.Errorf("registries.conf of %d bytes: %w", len(conf), errdefs.ErrInvalidArgument)
	}
	return f, os.WriteFile(f.at("registries.conf"), conf, 0o600)
}

// writeRoots refuses what is no certificate, because the library would skip it
// and fail later with a message about an unknown authority.
func (f *files) writeRoots(roots []string) error {
	for i, pem := range roots {
		if !x509.NewCertPool().AppendCertsFromPEM([]byte(pem)) {
			return fmt.Errorf("extra root certificate %d is not PEM: %w", i+1, errdefs.ErrInvalidArgument)
		}
		if err := os.WriteFile(f.at("certs/"+strconv.Itoa(i)+".crt"), []byte(pem), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// lookasideFile adds to the text that signatures beside the image count too.
func lookasideFile(text []byte) ([]byte, error) {
	var c struct {
		Default map[string]any            `yaml:"default-docker" json:"default-docker"`
		Docker  map[string]map[string]any `yaml:"docker" json:"docker,omitempty"`
	}
	if len(text) > maxText {
		return nil, fmt.Errorf("signature store configuration of %d bytes: %w", len(text), errdefs.ErrInvalidArgument)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil && len(bytes.TrimSpace(text)) > 0 {
		return nil, fmt.Errorf("malformed signature store configuration: %w", errdefs.ErrInvalidArgument)
	}
	if c.Default == nil {
		c.Default = map[string]any{}
	}
	if _, set := c.Default["use-sigstore-attachments"]; !set {
		c.Default["use-sigstore-attachments"] = true
	}
	return json.Marshal(c) // JSON is YAML
}

// context points the library at the files and away from /etc and $HOME.
func (f *files) context() types.SystemContext {
	return types.SystemContext{
		SystemRegistriesConfPath:    f.at("registries.conf"),
		SystemRegistriesConfDirPath: f.at("conf.d"),
		RegistriesDirPath:           f.at("registries.d"),
		DockerCertPath:              f.at("certs"),
		UserShortNameAliasConfPath:  f.at("empty/aliases"),
		BlobInfoCacheDir:            f.at("empty"),
		BigFilesTemporaryDir:        f.at("empty"),
		AuthFilePath:                f.at("empty/auth.json"),
	}
}

// checkRegistries makes the library parse the file now, and refuses the two
// settings that would run programs.
func checkRegistries(sys *types.SystemContext) error {
	bad := func(why string) error {
		return fmt.Errorf("registries configuration %s: %w", why, errdefs.ErrInvalidArgument)
	}
	if _, err := sysregistriesv2.GetRegistries(sys); err != nil {
		return bad("is malformed")
	}
	helpers, err := sysregistriesv2.CredentialHelpers(sys)
	if err != nil || len(helpers) != 1 || helpers[0] != sysregistriesv2.AuthenticationFileHelper {
		return bad("names credential helpers")
	}
	helper, err := sysregistriesv2.AdditionalLayerStoreAuthHelper(sys)
	if err != nil || helper != "" {
		return bad("names an authentication helper")
	}
	return nil
}
