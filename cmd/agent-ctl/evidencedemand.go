package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/initdata"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// demandFlags are what evidence has to say.
type demandFlags struct {
	reportData, initdata, ak string
	measurement, status      []string
	rtmr, pcr                map[string]string
	refuseDebug              bool
}

func (d *demandFlags) register(fl *pflag.FlagSet) {
	fl.StringVar(&d.reportData, "report-data", "", "`HEX` of what the guest bound, without the platform's padding")
	fl.StringVar(&d.initdata, "initdata", "", "`FILE` with the initdata that the guest was launched with")
	fl.StringArrayVar(&d.measurement, "measurement", nil, "`HEX` of the launch measurement or MRTD; one of several")
	fl.StringToStringVar(&d.rtmr, "rtmr", nil, "`N=HEX` of a runtime register of TDX; repeatable")
	fl.StringToStringVar(&d.pcr, "pcr", nil, "`N=HEX` of a register of a TPM; repeatable")
	fl.StringVar(&d.ak, "ak", "", "`HEX` of the SHA-256 of a plain TPM's key, as decode shows it")
	fl.StringSliceVar(&d.status, "tcb-status", nil, "`LIST` of TCB statuses that are accepted, such as UpToDate,SWHardeningNeeded; needs --collateral")
	fl.BoolVar(&d.refuseDebug, "refuse-debug", false, "refuse guests whose memory the host may read")
}

func (d *demandFlags) any() bool {
	return d.reportData != "" || d.initdata != "" || d.ak != "" || len(d.measurement)+len(d.status)+len(d.rtmr)+len(d.pcr) > 0 || d.refuseDebug
}

// demand is one condition, with what to say where it is not met.
type demand struct {
	met  func(*verify.Statement) bool
	want string
}

type demands []demand

// faults says which demands are not met.
func (ds demands) faults(st *verify.Statement) (faults []string) {
	for _, d := range ds {
		if !d.met(st) {
			faults = append(faults, d.want)
		}
	}
	return faults
}

// read turns the flags into demands; what is no value of its kind is a usage
// error.
func (d *demandFlags) read(collateral bool) (ds demands, err error) {
	add := func(want string, met func(*verify.Statement) bool) { ds = append(ds, demand{met, want}) }
	if d.refuseDebug {
		add("it is a debug guest, or does not tell", func(st *verify.Statement) bool { return !st.Debug && !st.HostControlled })
	}
	if d.reportData != "" {
		data, err := hex.DecodeString(d.reportData)
		if err != nil || len(data) > 64 {
			return nil, usagef("--report-data is not at most 64 bytes in hex")
		}
		add("report data", func(st *verify.Statement) bool { return st.Carries(data) })
	}
	if d.ak != "" {
		key, err := hex.DecodeString(d.ak)
		if err != nil || len(key) != 32 {
			return nil, usagef("--ak is not 32 bytes in hex")
		}
		add("key of the TPM", func(st *verify.Statement) bool { return st.HostControlled && bytes.Equal(st.AK[:], key) })
	}
	for _, m := range d.measurement {
		if b, err := hex.DecodeString(m); err != nil || len(b) != 48 {
			return nil, usagef("--measurement is not 48 bytes in hex")
		}
	}
	if len(d.measurement) > 0 {
		add("measurement", func(st *verify.Statement) bool {
			is := hex.EncodeToString(st.Measurement[:])
			return !st.HostControlled && slices.ContainsFunc(d.measurement, func(m string) bool { return strings.EqualFold(m, is) })
		})
	}
	return d.readMore(ds, collateral)
}

func (d *demandFlags) readMore(ds demands, collateral bool) (demands, error) {
	if d.initdata != "" {
		text, err := readBounded(d.initdata)
		if err != nil {
			return nil, err
		}
		doc, err := initdata.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.initdata, err)
		}
		ds = append(ds, demand{func(st *verify.Statement) bool { return st.BootedWith(doc.Digest()) }, "initdata"})
	}
	for _, s := range d.status {
		if !slices.Contains(verify.TCBStatuses, s) {
			return nil, usagef("--tcb-status %q is not one of %s", s, strings.Join(verify.TCBStatuses, ", "))
		}
	}
	if len(d.status) > 0 {
		if !collateral {
			return nil, usagef("--tcb-status needs --collateral")
		}
		ds = append(ds, demand{func(st *verify.Statement) bool { return slices.Contains(d.status, st.TCBStatus) }, "TCB status"})
	}
	for _, r := range []struct {
		flag   string
		values map[string]string
		size   int
		of     func(*verify.Statement, int) []byte
	}{{"rtmr", d.rtmr, 48, rtmrOf}, {"pcr", d.pcr, 32, pcrOf}} {
		for name, value := range r.values {
			n, err := strconv.ParseUint(name, 10, 5)
			want, err2 := hex.DecodeString(value)
			if err != nil || err2 != nil || len(want) != r.size {
				return nil, usagef("--%s %s=%s is not a register's number and %d bytes in hex", r.flag, name, value, r.size)
			}
			ds = append(ds, demand{func(st *verify.Statement) bool { return bytes.Equal(r.of(st, int(n)), want) }, strings.ToUpper(r.flag) + name})
		}
	}
	return ds, nil
}

// rtmrOf is nil where there is no such register.
func rtmrOf(st *verify.Statement, n int) []byte {
	if n >= len(st.RTMR) || st.TEE != evidence.TDX && st.TEE != evidence.AzTDX {
		return nil
	}
	return st.RTMR[n][:]
}

func pcrOf(st *verify.Statement, n int) []byte {
	if n >= len(st.PCR) {
		return nil
	}
	return st.PCR[n][:]
}
