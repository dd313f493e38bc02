package verify

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What Intel says of a TCB. The last two are of TDs whose module was replaced by
// a newer one while they ran.
const (
	UpToDate                             = "UpToDate"
	SWHardeningNeeded                    = "SWHardeningNeeded"
	ConfigurationNeeded                  = "ConfigurationNeeded"
	ConfigurationAndSWHardeningNeeded    = "ConfigurationAndSWHardeningNeeded"
	OutOfDate                            = "OutOfDate"
	OutOfDateConfigurationNeeded         = "OutOfDateConfigurationNeeded"
	Revoked                              = "Revoked"
	TDRelaunchAdvised                    = "TDRelaunchAdvised"
	TDRelaunchAdvisedConfigurationNeeded = "TDRelaunchAdvisedConfigurationNeeded"
)

// TCBStatuses are those that genuine evidence can have: Revoked is refused
// whatever a caller accepts, and so is a status that is not known.
var TCBStatuses = []string{
	UpToDate, SWHardeningNeeded, ConfigurationNeeded, ConfigurationAndSWHardeningNeeded, OutOfDate,
	OutOfDateConfigurationNeeded, TDRelaunchAdvised, TDRelaunchAdvisedConfigurationNeeded,
}

// tcbVerdict is what the collateral says of a quote.
type tcbVerdict struct {
	status     string
	date       string
	advisories []string
	evaluation int
	expires    time.Time
}

// tcb holds a quote against Intel's collateral: revocations, the identity of the
// quoting enclave, the module, and the levels of the processor.
func (q *quote) tcb(pck *certificate, o Options) (*tcbVerdict, error) {
	c := o.Collateral
	if _, err := c.unrevoked(pck.chain, o.now(), true); err != nil {
		return nil, err
	}
	info, err := c.tcbInfoOf(pck.fmspc, o)
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(info.PCEID, pck.pceID) {
		return nil, forged("TCB info is for PCE %s and not %s", info.PCEID, pck.pceID)
	}
	id, err := c.identity(o)
	if err != nil {
		return nil, err
	}
	enclave, err := id.level(q.qeReport)
	if err != nil {
		return nil, err
	}
	level, err := info.evaluate(q.body[:16], q.body, pck)
	if err != nil {
		return nil, err
	}
	level.status = worse(level.status, enclave.Status)
	if len(q.body) == body15 && strings.HasPrefix(level.status, OutOfDate) && updated(q.body[:16], q.body[584:600]) {
		if now, err := info.evaluate(q.body[584:600], q.body, pck); err == nil {
			level.status = relaunched(level.status, worse(now.status, enclave.Status))
		}
	}
	level.advisories = union(level.advisories, enclave.Advisories)
	level.evaluation = min(info.Evaluation, id.Evaluation)
	if level.expires = info.Next; id.Next.Before(info.Next) {
		level.expires = id.Next
	}
	if !slices.Contains(TCBStatuses, level.status) {
		return nil, forged("TCB status is %q", level.status)
	}
	return level, nil
}

// evaluate finds the level of security versions: the first that none of the
// components is below. Since major version 1 the first two versions are the
// module's own, which has levels of its own.
func (i *tcbInfo) evaluate(svn, body []byte, pck *certificate) (*tcbVerdict, error) {
	module, own, err := i.module(svn, body)
	if err != nil {
		return nil, err
	}
	from := 0
	if own {
		from = 2
	}
	for _, l := range i.Levels {
		if len(l.TCB.SGX) != 16 || len(l.TCB.TDX) != 16 || !reaches(pck.svn[:], l.TCB.SGX) || pck.pceSVN < l.TCB.PCE || !reaches(svn[from:], l.TCB.TDX[from:]) {
			continue
		}
		return &tcbVerdict{status: worse(l.Status, module.Status), date: l.Date, advisories: union(l.Advisories, module.Advisories)}, nil
	}
	return nil, forged("platform is below every TCB level that Intel knows")
}

func reaches(svn []byte, want []component) bool {
	for i, w := range want {
		if svn[i] < w.SVN {
			return false
		}
	}
	return true
}

// Offsets in the body of a quote.
const (
	seamSigner     = 64
	seamAttributes = 112
)

// module finds the TDX module by its major version, and its level; own says that
// it has levels of its own.
func (i *tcbInfo) module(svn, body []byte) (level tcbLevel, own bool, err error) {
	identity := i.Module
	level.Status = UpToDate
	if own = svn[1] > 0; own {
		name := fmt.Sprintf("TDX_%02X", svn[1])
		at := slices.IndexFunc(i.Modules, func(m moduleIdentity) bool { return strings.EqualFold(m.ID, name) })
		if at < 0 {
			return level, own, forged("TDX module of major version %d is not Intel's", svn[1])
		}
		identity = i.Modules[at]
		fits := slices.IndexFunc(identity.Levels, func(l tcbLevel) bool { return uint16(svn[0]) >= l.TCB.ISV })
		if fits < 0 {
			return level, own, forged("TDX module is below every TCB level that Intel knows")
		}
		level = identity.Levels[fits]
	}
	if !bytes.Equal(identity.Signer, body[seamSigner:seamSigner+48]) || !masked(body[seamAttributes:seamAttributes+8], identity.Mask, identity.Attributes) {
		return level, own, forged("TDX module is not Intel's")
	}
	return level, own, nil
}

// Offsets in the report of the quoting enclave, beside those of its signer.
const (
	qeMisc    = 16
	qeProduct = 256
	qeSVN     = 258
)

// level holds the quoting enclave against its identity. MISCSELECT stands big
// endian in the identity.
func (id *qeIdentity) level(report []byte) (tcbLevel, error) {
	misc := bytes.Clone(report[qeMisc : qeMisc+4])
	slices.Reverse(misc)
	if !bytes.Equal(id.Signer, report[qeSigner:qeSigner+32]) || binary.LittleEndian.Uint16(report[qeProduct:]) != id.Product ||
		!masked(misc, id.MiscMask, id.Misc) || !masked(report[qeAttributes:qeAttributes+16], id.Mask, id.Attributes) {
		return tcbLevel{}, forged("quoting enclave is not the one of Intel's identity")
	}
	svn := binary.LittleEndian.Uint16(report[qeSVN:])
	for _, l := range id.Levels {
		if svn >= l.TCB.ISV {
			return l, nil
		}
	}
	return tcbLevel{}, forged("quoting enclave is below every TCB level that Intel knows")
}

// masked compares what the mask lets through.
func masked(got, mask, want []byte) bool {
	if len(mask) != len(got) || len(want) != len(got) {
		return false
	}
	for i := range got {
		if got[i]&mask[i] != want[i] {
			return false
		}
	}
	return true
}

// worse joins the status of the processor with that of a part of its software.
func worse(platform, part string) string {
	switch {
	case part == UpToDate || platform == Revoked:
		return platform
	case part != OutOfDate: // Revoked, or unknown here
		return part
	case platform == UpToDate || platform == SWHardeningNeeded:
		return OutOfDate
	case platform == ConfigurationNeeded || platform == ConfigurationAndSWHardeningNeeded:
		return OutOfDateConfigurationNeeded
	}
	return platform
}

// updated reports whether the versions that run now are those of the launch or
// later ones. A module of a later major version counts from anew.
func updated(launched, now []byte) bool {
	for i := range now {
		if now[i] < launched[i] && (i > 0 || now[1] == launched[1]) {
			return false
		}
	}
	return true
}

// relaunched is the status of a TD that was launched on versions which are out
// of date, on a platform that has been updated since.
func relaunched(launched, now string) string {
	switch now {
	case UpToDate, SWHardeningNeeded:
		if launched == OutOfDateConfigurationNeeded {
			return TDRelaunchAdvisedConfigurationNeeded
		}
		return TDRelaunchAdvised
	case ConfigurationNeeded, ConfigurationAndSWHardeningNeeded:
		return TDRelaunchAdvisedConfigurationNeeded
	}
	return launched
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}
