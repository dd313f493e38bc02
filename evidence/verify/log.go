package verify

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/coffer-cc/coffer/evidence/measure"
)

// LogEntry is an event of a log for a reader. What it says beside the digest is
// the word of whoever wrote the log, unless Covered says that the digest is of
// the data itself.
type LogEntry struct {
	Register  uint32 `json:"register"` // 1 to 4 for RTMR 0 to 3
	Type      string `json:"type"`
	Digest    string `json:"digest"` // SHA-384 in hex, else the first with its number
	Covered   bool   `json:"digest_is_of_data"`
	Text      string `json:"text"` // short
	Domain    string `json:"domain,omitempty"`
	Operation string `json:"operation,omitempty"`
	Content   string `json:"content,omitempty"`
}

// eventTypes are names of the TCG PC Client Platform Firmware Profile.
var eventTypes = map[uint32]string{
	0x00: "EV_PREBOOT_CERT", 0x01: "EV_POST_CODE", 0x02: "EV_UNUSED", 0x03: "EV_NO_ACTION", 0x04: "EV_SEPARATOR", 0x05: "EV_ACTION",
	0x06: "EV_EVENT_TAG", 0x07: "EV_S_CRTM_CONTENTS", 0x08: "EV_S_CRTM_VERSION", 0x09: "EV_CPU_MICROCODE",
	0x0a: "EV_PLATFORM_CONFIG_FLAGS", 0x0b: "EV_TABLE_OF_DEVICES", 0x0c: "EV_COMPACT_HASH", 0x0d: "EV_IPL",
	0x0e: "EV_IPL_PARTITION_DATA", 0x0f: "EV_NONHOST_CODE", 0x10: "EV_NONHOST_CONFIG", 0x11: "EV_NONHOST_INFO",
	0x12: "EV_OMIT_BOOT_DEVICE_EVENTS",

	0x80000001: "EV_EFI_VARIABLE_DRIVER_CONFIG", 0x80000002: "EV_EFI_VARIABLE_BOOT", 0x80000003: "EV_EFI_BOOT_SERVICES_APPLICATION",
	0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER", 0x80000005: "EV_EFI_RUNTIME_SERVICES_DRIVER", 0x80000006: "EV_EFI_GPT_EVENT",
	0x80000007: "EV_EFI_ACTION", 0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB", 0x80000009: "EV_EFI_HANDOFF_TABLES",
	0x8000000a: "EV_EFI_PLATFORM_FIRMWARE_BLOB2", 0x8000000b: "EV_EFI_HANDOFF_TABLES2", 0x8000000c: "EV_EFI_VARIABLE_BOOT2",
	0x80000010: "EV_EFI_HCRTM_EVENT", 0x800000e0: "EV_EFI_VARIABLE_AUTHORITY", 0x800000e1: "EV_EFI_SPDM_FIRMWARE_BLOB",
	0x800000e2: "EV_EFI_SPDM_FIRMWARE_CONFIG",
}

// maxText bounds what is shown of an event.
const maxText = 160

// Log lists the events of a log.
func Log(log []byte) ([]LogEntry, error) {
	events, _, err := measure.CCEL(log)
	if err != nil {
		return nil, err
	}
	list := make([]LogEntry, len(events))
	for i, e := range events {
		list[i] = entryOf(e)
	}
	return list, nil
}

func entryOf(e measure.Event) LogEntry {
	l := LogEntry{Register: e.Register, Type: eventTypes[e.Type]}
	if l.Type == "" {
		l.Type = fmt.Sprintf("%#x", e.Type)
	}
	if d := e.Digests[measure.SHA384]; d != nil {
		sum := sha512.Sum384(e.Data)
		l.Digest, l.Covered = hex.EncodeToString(d), bytes.Equal(sum[:], d)
	} else if algorithms := slices.Sorted(maps.Keys(e.Digests)); len(algorithms) > 0 {
		l.Digest = fmt.Sprintf("%#x:%x", algorithms[0], e.Digests[algorithms[0]])
	}
	if line, ok := measure.Line(e); ok {
		l.Domain, l.Operation, l.Content = line.Domain, line.Operation, line.Content
		l.Text = line.Domain + " " + line.Operation + " " + line.Content
		return l
	}
	l.Text = rendered(l.Type, e.Data)
	return l
}

// rendered shows the name in an event, or its text, or the first of its bytes.
func rendered(kind string, data []byte) string {
	var text string
	switch {
	case strings.HasPrefix(kind, "EV_EFI_VARIABLE"):
		text = variable(data)
	case strings.HasSuffix(kind, "2") && len(data) > 0 && int(data[0]) < len(data):
		text = readable(data[1 : 1+int(data[0])])
	default:
		text = readable(data)
	}
	if text == "" && len(data) > 0 {
		text = hex.EncodeToString(data[:min(len(data), 32)])
	}
	return text[:min(len(text), maxText)]
}

// variable is the name in UEFI_VARIABLE_DATA.
func variable(data []byte) string {
	const head = 16 + 8 + 8
	if len(data) < head {
		return ""
	}
	n := binary.LittleEndian.Uint64(data[16:])
	if n > uint64(len(data)-head)/2 {
		return ""
	}
	return wide(data[head : head+2*n])
}

// readable is text in ASCII or UTF-16, "" for anything else.
func readable(data []byte) string {
	if s := strings.TrimRight(string(data), "\x00"); s != "" && !strings.ContainsFunc(s, unprintable) {
		return s
	}
	return wide(data)
}

func wide(data []byte) string {
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(data[2*i:])
	}
	if s := strings.TrimRight(string(utf16.Decode(units)), "\x00"); !strings.ContainsFunc(s, unprintable) {
		return s
	}
	return ""
}

func unprintable(r rune) bool { return r < ' ' || r > '~' }
