package main

import (
	"net"
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
	hw.start = evidencetest.NewKernel(t, d).Start
	return hw
}

// tdxByIoctl is a guest whose kernel has the device of TDX alone, neither a
// report interface with a driver nor measurements in sysfs. Its quotes come from
// the host's quoting service.
func tdxByIoctl(t *testing.T) *hardware {
	p := evidencetest.NewTDX(t)
	hw := tdxLaunch(t, p)
	hw.tsm = &evidencetest.TSM{}
	log := hw.files
	hw.files = func(t *testing.T) {
		log(t)
		evidencetest.PutFiles(t, "/sys/devices/virtual/misc", nil)
	}
	k := evidencetest.NewKernel(t, &evidencetest.TDXGuest{Platform: p})
	k.Host = map[uint32]func(net.Conn) error{evidencetest.QGSPort: func(c net.Conn) error {
		return p.ServeQGS(c, evidencetest.QGSAnswer)
	}}
	hw.start = k.Start
	return hw
}
