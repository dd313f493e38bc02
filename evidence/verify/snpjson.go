package verify

import (
	"encoding/binary"
	"encoding/json"
)

// reportMembers says where each member of Trustee's JSON stands in a report
// (the crate sev, AttestationReport): numbers little endian, bytes as they are.
// Nothing but these members reaches the report, so whatever stood in reserved
// places when the processor signed it makes the signature fail.
var reportMembers = []struct {
	name string
	at   int
	size int
	kind byte // n number, o number or null, b bytes, t TCB, v version
}{
	{"version", 0, 4, 'n'}, {"guest_svn", 4, 4, 'n'}, {"policy", 8, 8, 'n'},
	{"family_id", 0x10, 16, 'b'}, {"image_id", 0x20, 16, 'b'}, {"vmpl", 0x30, 4, 'n'}, {"sig_algo", 0x34, 4, 'n'},
	{"current_tcb", 0x38, 8, 't'}, {"plat_info", 0x40, 8, 'n'}, {"key_info", 0x48, 4, 'n'},
	{"report_data", 0x50, 64, 'b'}, {"measurement", 0x90, 48, 'b'}, {"host_data", 0xc0, 32, 'b'},
	{"id_key_digest", 0xe0, 48, 'b'}, {"author_key_digest", 0x110, 48, 'b'},
	{"report_id", 0x140, 32, 'b'}, {"report_id_ma", 0x160, 32, 'b'}, {"reported_tcb", 0x180, 8, 't'},
	{"cpuid_fam_id", 0x188, 1, 'o'}, {"cpuid_mod_id", 0x189, 1, 'o'}, {"cpuid_step", 0x18a, 1, 'o'},
	{"chip_id", 0x1a0, 64, 'b'}, {"committed_tcb", 0x1e0, 8, 't'},
	{"current", 0x1e8, 3, 'v'}, {"committed", 0x1ec, 3, 'v'}, {"launch_tcb", 0x1f0, 8, 't'},
	{"launch_mit_vector", 0x1f8, 8, 'o'}, {"current_mit_vector", 0x200, 8, 'o'},
}

// rebuildReport writes a report from its JSON form.
func rebuildReport(text json.RawMessage) ([]byte, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, malformed("attestation_report")
	}
	raw := make([]byte, reportSize)
	// The family decides how a TCB is laid out, so it comes before all.
	var family byte
	if v := members["cpuid_fam_id"]; v != nil && json.Unmarshal(v, &family) != nil {
		return nil, malformed("cpuid_fam_id")
	}
	for _, m := range reportMembers {
		v, there := members[m.name]
		if m.kind == 'o' && (!there || string(v) == "null") {
			continue
		}
		if err := putMember(raw[m.at:m.at+m.size], m.kind, family, v); err != nil {
			return nil, malformed("%s", m.name)
		}
	}
	var sig struct{ R, S []uint16 }
	if err := json.Unmarshal(members["signature"], &sig); err != nil {
		return nil, malformed("signature")
	}
	if !putBytes(raw[reportSignature:reportSignature+72], sig.R) || !putBytes(raw[reportSignature+72:reportSignature+144], sig.S) {
		return nil, malformed("signature")
	}
	return raw, nil
}

func putMember(to []byte, kind, family byte, v json.RawMessage) error {
	switch kind {
	case 'n', 'o':
		var n uint64
		if err := json.Unmarshal(v, &n); err != nil {
			return err
		}
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], n)
		if copy(to, b[:]); n>>(8*min(len(to), 7)) != 0 && len(to) < 8 {
			return malformed("too large")
		}
	case 'b':
		var list []uint16
		if err := json.Unmarshal(v, &list); err != nil {
			return err
		}
		if !putBytes(to, list) {
			return malformed("not %d bytes", len(to))
		}
	case 't':
		var t struct {
			FMC                             *uint8
			Bootloader, TEE, SNP, Microcode uint8
		}
		if err := json.Unmarshal(v, &t); err != nil {
			return err
		}
		if family == turinFamily {
			if t.FMC == nil {
				return malformed("fmc is missing")
			}
			to[0], to[1], to[2], to[3], to[7] = *t.FMC, t.Bootloader, t.TEE, t.SNP, t.Microcode
			return nil
		}
		to[0], to[1], to[6], to[7] = t.Bootloader, t.TEE, t.SNP, t.Microcode
	case 'v':
		var f struct{ Major, Minor, Build uint8 }
		if err := json.Unmarshal(v, &f); err != nil {
			return err
		}
		to[0], to[1], to[2] = f.Build, f.Minor, f.Major
	}
	return nil
}

// putBytes takes a list of numbers for bytes if there are exactly enough.
func putBytes(to []byte, list []uint16) bool {
	if len(list) != len(to) {
		return false
	}
	for i, n := range list {
		if n > 0xff {
			return false
		}
		to[i] = byte(n)
	}
	return true
}
