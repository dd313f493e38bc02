package verify

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/coffer-cc/coffer/evidence"
	"github.com/coffer-cc/coffer/evidence/measure"
)

// File is evidence in one of the forms in which it is found on disks.
type File struct {
	Form  string // see the constants
	Token *Token // what a token says; nil for all else

	raw []byte
}

// Forms of files.
const (
	FormTDX    = "TDX evidence"
	FormSNP    = "SNP evidence"
	FormAzTDX  = "Azure TDX evidence"
	FormAzSNP  = "Azure SNP evidence"
	FormTPM    = "TPM evidence"
	FormQuote  = "TDX quote"
	FormReport = "SNP report"
	FormLog    = "event log"
	FormToken  = "token"
)

// Open recognises a file by its content: evidence in Trustee's JSON, a raw
// quote, a raw report, the area of an ACPI CCEL, or a token. Another one wraps
// errdefs.ErrNotImplemented.
func Open(data []byte) (*File, error) {
	text := bytes.TrimSpace(data)
	if form := evidenceForm(text); form != "" {
		return &File{Form: form, raw: text}, nil
	}
	switch {
	case bytes.Count(text, []byte(".")) == 2 && bytes.HasPrefix(text, []byte("eyJ")):
		return openToken(string(text))
	case len(data) > 8 && slices.Contains([]uint16{4, 5}, binary.LittleEndian.Uint16(data)) && binary.LittleEndian.Uint32(data[4:]) == teeTDX:
		return &File{Form: FormQuote, raw: data}, nil
	case bytes.Contains(data[:min(len(data), 64)], []byte("Spec ID Event03")):
		return &File{Form: FormLog, raw: data}, nil
	case len(data) >= reportSize && data[0] >= 2 && data[0] <= 5 && bytes.Equal(data[1:4], []byte{0, 0, 0}):
		return &File{Form: FormReport, raw: data[:reportSize]}, nil
	}
	return nil, unknown("file is no evidence that is known here")
}

// evidenceForm tells Trustee's JSON forms apart by their members, "" for
// anything else.
func evidenceForm(text []byte) string {
	var members map[string]json.RawMessage
	if json.Unmarshal(text, &members) != nil {
		return ""
	}
	for _, f := range []struct {
		form    string
		members []string
	}{
		{FormAzSNP, []string{"quote", "report"}}, // before it had versions
		{FormAzSNP, []string{"tpm_quote", "vcek"}},
		{FormAzTDX, []string{"tpm_quote", "td_quote"}},
		{FormTPM, []string{"tpm_quote", "ak_public"}},
		{FormTDX, []string{"quote"}},
		{FormSNP, []string{"attestation_report"}},
	} {
		if !slices.ContainsFunc(f.members, func(m string) bool { return members[m] == nil }) {
			return f.form
		}
	}
	return ""
}

func openToken(text string) (*File, error) {
	t, err := ReadToken(text)
	if err != nil {
		return nil, err
	}
	return &File{Form: FormToken, Token: t}, nil
}

// Log lists the events of a log, by itself or in evidence of TDX; nil without
// one.
func (f *File) Log() ([]LogEntry, error) {
	log := f.raw
	if f.Form == FormTDX {
		var e struct {
			EventLog []byte `json:"cc_eventlog"`
		}
		if err := json.Unmarshal(f.raw, &e); err != nil {
			return nil, malformed("tdx evidence")
		}
		log = e.EventLog
	} else if f.Form != FormLog {
		return nil, nil
	}
	if len(log) == 0 {
		return nil, nil
	}
	return Log(log)
}

// Describe reads without judging: whatever it returns may be forged.
func (f *File) Describe() (*Statement, error) {
	switch f.Form {
	case FormTDX:
		var e struct {
			Quote []byte `json:"quote"`
		}
		if err := json.Unmarshal(f.raw, &e); err != nil {
			return nil, malformed("tdx evidence")
		}
		return describeQuote(e.Quote)
	case FormSNP:
		raw, _, err := Decompose(f.raw)
		if err != nil {
			return nil, err
		}
		return describeReport(raw), nil
	case FormAzSNP, FormAzTDX:
		return describeAzure(f.Kind(), f.raw)
	case FormTPM:
		st, _, err := describeTPM(f.raw)
		return st, err
	case FormQuote:
		return describeQuote(f.raw)
	case FormReport:
		return describeReport(f.raw), nil
	case FormLog:
		return replayed(f.raw)
	}
	return nil, unknown("%s says nothing of a platform by itself", f.Form)
}

func describeQuote(raw []byte) (*Statement, error) {
	q, err := parseQuote(raw)
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	family := ""
	if certs, err := parsePEM(q.chain); err == nil {
		family = readPCK(certs[0]).fmspc
	}
	return q.statement(family), nil
}

func describeReport(raw []byte) *Statement {
	r := report(raw)
	kind := map[uint32]string{0: "VCEK", 1: "VLEK", 7: "nobody"}[r.u32(0x48)>>2&7]
	return r.statement(cmp.Or(r.product(), "processor not named"), kind)
}

func replayed(log []byte) (*Statement, error) {
	events, _, err := measure.CCEL(log)
	if err != nil {
		return nil, err
	}
	rtmr, err := measure.Replay(events)
	return &Statement{Format: FormLog, RTMR: rtmr, Events: len(events)}, err
}

// Verify judges. A raw report needs the certificate of its key in certs; a log
// or a token alone cannot be judged, which wraps errdefs.ErrNotImplemented.
func (f *File) Verify(certs Certs, o Options) (*Statement, error) {
	switch f.Form {
	case FormTDX:
		return tdxEvidence(f.raw, o)
	case FormSNP:
		return snpEvidence(f.raw, o)
	case FormAzSNP, FormAzTDX, FormTPM:
		return Evidence(f.Kind(), f.raw, o)
	case FormQuote:
		return Quote(f.raw, o)
	case FormReport:
		return Report(f.raw, certs, o)
	}
	return nil, unknown("%s cannot be judged alone", f.Form)
}

// Kind is the platform of the file, "" where it is of none.
func (f *File) Kind() evidence.Kind {
	switch f.Form {
	case FormTDX, FormQuote:
		return evidence.TDX
	case FormSNP, FormReport:
		return evidence.SNP
	case FormAzSNP:
		return evidence.AzSNP
	case FormAzTDX:
		return evidence.AzTDX
	case FormTPM:
		return evidence.TPM
	}
	return ""
}
