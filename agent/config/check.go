package config

import (
	"net/url"
	"path"
	"strings"

	"github.com/coffer-cc/coffer/evidence/resource"
)

func isPath(s string) error {
	if !path.IsAbs(s) || strings.Contains(s, "\x00") {
		return malformed("not an absolute path")
	}
	return nil
}

func isURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return malformed("not an http or https URL")
	}
	return nil
}

// isProxy also takes what proxies are usually given as, a host and a port.
func isProxy(s string) error {
	if strings.Contains(s, "://") {
		return isURL(s)
	}
	return isURL("http://" + s)
}

// isSource accepts a resource of the key broker or a file of the image.
func isSource(s string) error {
	if file, ok := strings.CutPrefix(s, "file://"); ok {
		return isPath(file)
	}
	if _, err := resource.Parse(s); err != nil {
		return malformed("neither a kbs:/// resource nor a file:/// path")
	}
	return nil
}

func isServer(s string) error {
	if !strings.HasPrefix(s, "vsock://") && !strings.HasPrefix(s, "unix://") {
		return malformed("neither a vsock:// nor a unix:// address")
	}
	return nil
}

// isTEE accepts names that drivers may have; which ones exist is theirs to say.
func isTEE(s string) error {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return malformed("no name of a platform")
		}
	}
	return nil
}

// credentialsDir is the only place where credentials may be written.
const credentialsDir = "/run/confidential-containers/cdh/kbs/"

func isCredentialPath(s string) error {
	if !strings.HasPrefix(s, credentialsDir) || path.Clean(s) != s {
		return malformed("not a path below %s", credentialsDir)
	}
	return nil
}
