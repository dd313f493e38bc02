package main

import (
	"net"
	"os/exec"
	"testing"

	"github.com/coffer-cc/coffer/evidence/evidencetest"
)

// snpByIoctl is a guest whose kernel has the device of SEV-SNP, and a report
// interface without a driver.
func snpByIoctl(t *testing.T) *hardware {
	return snpDevice(t, &evidencetest.SEVGuest{Platform: evidencetest.NewSNP(t)})
}

func snpDevice(t *testing.T, d *evidencetest.SEVGuest) *hardware {
	hw := snpLaunch(d.Platform)
	hw.tsm = &evidencetest.TSM{}
	hw.start = func(cmd *exec.Cmd) error { return evidencetest.NewKernel(t, d).Start(cmd) }
	return hw
}

// tdxByIoctl is a guest whose kernel has the device of TDX, and whose host has a
// quoting service.
func tdxByIoctl(t *testing.T) *hardware {
	p := evidencetest.NewTDX(t)
	return tdxDevice(t, &evidencetest.TDXGuest{Platform: p}, map[uint32]func(net.Conn) error{
		evidencetest.QGSPort: func(c net.Conn) error { return p.ServeQGS(c, evidencetest.QGSAnswer) },
	})
}

// tdxDevice is a guest with neither a driver behind the report interface nor
// measurements in sysfs.
func tdxDevice(t *testing.T, d *evidencetest.TDXGuest, services map[uint32]func(net.Conn) error) *hardware {
	hw := tdxLaunch(t, d.Platform)
	hw.tsm = &evidencetest.TSM{}
	log := hw.files
	hw.files = func(t *testing.T) {
		log(t)
		evidencetest.PutFiles(t, "/sys/devices/virtual/misc", nil)
	}
	hw.start = func(cmd *exec.Cmd) error {
		k := evidencetest.NewKernel(t, d)
		k.Host = services
		return k.Start(cmd)
	}
	return hw
}
