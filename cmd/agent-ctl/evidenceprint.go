package main

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/verify"
)

// printStatement shows all that the evidence says. Debug, TCB and SMT are among
// the facts of every platform.
func (a *app) printStatement(f *verify.File, st *verify.Statement, verdict string) error {
	fields := [][]string{{"form", f.Form}, {"verdict", verdict}, {"format", st.Format}}
	if st.TEE != "" {
		fields = append(fields, []string{"tee", string(st.TEE)}, []string{"report_data", hex.EncodeToString(st.ReportData[:])})
		if !st.HostControlled {
			fields = append(fields, []string{"measurement", hex.EncodeToString(st.Measurement[:])})
		}
		fields = append(fields, []string{"initdata", hex.EncodeToString(st.InitData)})
	}
	if st.TEE == evidence.TDX || st.TEE == evidence.AzTDX || f.Form == verify.FormLog {
		for i, r := range st.RTMR {
			fields = append(fields, []string{fmt.Sprintf("rtmr%d", i), hex.EncodeToString(r[:])})
		}
	}
	for i, r := range st.PCR {
		fields = append(fields, []string{fmt.Sprintf("pcr%02d", i), hex.EncodeToString(r[:])})
	}
	if st.Events > 0 {
		fields = append(fields, []string{"events", fmt.Sprint(st.Events)})
	}
	for _, x := range st.Facts {
		fields = append(fields, []string{x.Name, x.Value})
	}
	shown := make(map[string]any, len(fields))
	for _, x := range fields {
		shown[x[0]] = x[1]
	}
	log, err := f.Log()
	if err != nil {
		return fmt.Errorf("event log: %w", err)
	}
	if log != nil {
		shown["log"] = log
	}
	for i, l := range log {
		fields = append(fields, []string{fmt.Sprintf("event%d", i), fmt.Sprintf("RTMR%d %s %s %s", int(l.Register)-1, l.Type, l.Digest, l.Text)})
	}
	return a.print(shown, fields)
}

// printToken shows what a broker found, submod by submod.
func (a *app) printToken(t *verify.Token, verdict string) error {
	rows := [][]string{
		{"form", verify.FormToken}, {"verdict", verdict}, {"algorithm", t.Algorithm}, {"key_id", t.KeyID},
		{"issuer", t.Issuer}, {"profile", t.Profile}, {"issued", instant(t.Issued)}, {"expires", instant(t.Expires)},
	}
	shown := map[string]any{"submods": t.Submods, "claims": t.Claims}
	for _, r := range rows {
		shown[r[0]] = r[1]
	}
	for _, s := range t.Submods {
		rows = append(rows, []string{s.Name, fmt.Sprintf("%s by policy %s", s.Status, s.Policy)})
		for _, v := range s.Vector {
			rows = append(rows, []string{s.Name + "." + v.Name, fmt.Sprintf("%d %s", v.Value, v.Tier)})
		}
	}
	return a.print(shown, append(rows, []string{"claims", string(t.Claims)}))
}

// instant is a time of a token, which need not say it.
func instant(t time.Time) string {
	if t.IsZero() {
		return "not told"
	}
	return t.Format(time.RFC3339)
}
