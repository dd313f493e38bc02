package tee

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/coffer-cc/coffer/evidence"
)

func decodeTDX(data []byte) ([]Field, error) {
	var e struct {
		EventLog []byte `json:"cc_eventlog"`
		Quote    []byte `json:"quote"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, undecodable(evidence.TDX, notJSON)
	}
	if len(e.Quote) < quoteHeader+quoteBodyHead+quoteBody {
		return nil, undecodable(evidence.TDX, fmt.Sprintf("quote of %d bytes is too short", len(e.Quote)))
	}
	version, body := binary.LittleEndian.Uint16(e.Quote), e.Quote[quoteHeader:]
	if version == 5 {
		body = body[quoteBodyHead:]
	}
	td := tdParts{tcb: body[:16], seam: body[16:64], attributes: body[120:128], xfam: body[128:136], mrtd: body[136:184], rtmrs: body[328:520]}
	fields := []Field{
		{"tee", string(evidence.TDX)},
		{"version", strconv.Itoa(int(version))},
		{"report_data", hex.EncodeToString(body[bodyReportData : bodyReportData+64])},
		{"initdata", hex.EncodeToString(body[184:232])},
	}
	return append(append(fields, td.said()...), Field{"event_log", fmt.Sprintf("%d bytes", len(e.EventLog))}), nil
}

// tdParts are what a quote and the TDREPORT below it tell of a guest, each in
// its own place.
type tdParts struct {
	tcb, seam, attributes, xfam, mrtd []byte
	rtmrs                             []byte // four of 48 bytes
}

// partsOfReport reads a TDREPORT of tdreportSize bytes (Intel TDX module ABI:
// REPORTMACSTRUCT, TEE_TCB_INFO at 256, TDINFO at 512).
func partsOfReport(r []byte) tdParts {
	return tdParts{tcb: r[264:280], seam: r[280:328], attributes: r[512:520], xfam: r[520:528], mrtd: r[528:576], rtmrs: r[720:912]}
}

// said has the debug bit of the attributes: TDATTRIBUTES.DEBUG.
func (p tdParts) said() []Field {
	fields := []Field{
		{"measurement", hex.EncodeToString(p.mrtd)},
		{"debug", strconv.FormatBool(p.attributes[0]&1 != 0)},
		{"smt", unknown("TDX does not tell it to verifiers")},
		{"tee_tcb_svn", hex.EncodeToString(p.tcb)},
		{"mr_seam", hex.EncodeToString(p.seam)},
		{"td_attributes", hex.EncodeToString(p.attributes)},
		{"xfam", hex.EncodeToString(p.xfam)},
	}
	for i := range len(p.rtmrs) / 48 {
		fields = append(fields, Field{fmt.Sprintf("rtmr%d", i), hex.EncodeToString(p.rtmrs[48*i : 48*i+48])})
	}
	return fields
}
