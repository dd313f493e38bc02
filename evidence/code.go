package evidence

import (
	"context"
	"errors"
	"strings"
)

// Code is the stable name of one fault of attestation, a leg and a word. Shims,
// logs, metrics and scripts see it, so none is ever renamed. docs/attestation.md
// lists them. The class of an error, and with it the code on the wire, does not
// depend on it.
type Code string

// Codes by the leg of the way from the platform to the resource.
const (
	PlatformNone        Code = "platform/none"
	PlatformWrong       Code = "platform/wrong"
	PlatformUnsupported Code = "platform/unsupported"

	InitdataRefused   Code = "initdata/refused"
	InitdataMalformed Code = "initdata/malformed"

	DriverDevice    Code = "driver/device"
	DriverIoctl     Code = "driver/ioctl"
	DriverConfigfs  Code = "driver/configfs"
	DriverReply     Code = "driver/reply"
	DriverEventLog  Code = "driver/eventlog"
	DriverRegisters Code = "driver/registers"
	DriverHelper    Code = "driver/helper"
	DriverTimeout   Code = "driver/timeout"

	EndorsementCertificates Code = "endorsement/certificates"
	EndorsementQuoting      Code = "endorsement/quoting"

	TransportConfig      Code = "transport/config"
	TransportDNS         Code = "transport/dns"
	TransportRefused     Code = "transport/refused"
	TransportTLS         Code = "transport/tls"
	TransportCertificate Code = "transport/certificate"
	TransportProxy       Code = "transport/proxy"
	TransportTimeout     Code = "transport/timeout"
	TransportConnection  Code = "transport/connection"
	TransportBusy        Code = "transport/busy"
	TransportReply       Code = "transport/reply"

	VerdictRefused  Code = "verdict/refused"
	VerdictProtocol Code = "verdict/protocol"
	VerdictSession  Code = "verdict/session"
	VerdictIssuer   Code = "verdict/issuer"
	VerdictFault    Code = "verdict/fault"

	PolicyDenied Code = "policy/denied"
	PolicyBroken Code = "policy/broken"

	ResourceAbsent    Code = "resource/absent"
	ResourceMalformed Code = "resource/malformed"
	ResourceWrap      Code = "resource/wrap"
)

// Leg is the part of attestation where a fault lies.
type Leg string

// Legs in the order in which attestation passes them.
const (
	LegPlatform    Leg = "platform"
	LegInitdata    Leg = "initdata"
	LegDriver      Leg = "driver"
	LegEndorsement Leg = "endorsement"
	LegTransport   Leg = "transport"
	LegVerdict     Leg = "verdict"
	LegPolicy      Leg = "policy"
	LegResource    Leg = "resource"
)

// Leg is the word before the slash.
func (c Code) Leg() Leg {
	leg, _, _ := strings.Cut(string(c), "/")
	return Leg(leg)
}

// Wrap puts the code in front of the error's text. What has a code already
// keeps it, since whoever saw the fault first knows best. Nil stays nil.
func (c Code) Wrap(err error) error {
	if err == nil || CodeOf(err) != "" {
		return err
	}
	return &Fault{Code: c, Err: err}
}

// Expired returns why ctx has ended, with the code where its time was over. A
// caller that left has found no fault.
func (c Code) Expired(ctx context.Context) error {
	if err := ctx.Err(); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return c.Wrap(ctx.Err())
}

// Fault is an error with a code. It has the class of the error in it.
type Fault struct {
	Code Code
	Err  error
}

func (f *Fault) Error() string { return string(f.Code) + ": " + f.Err.Error() }

// Unwrap returns the error without the code.
func (f *Fault) Unwrap() error { return f.Err }

// CodeOf finds the code of an error, "" without one.
func CodeOf(err error) Code {
	var f *Fault
	if errors.As(err, &f) {
		return f.Code
	}
	return ""
}
