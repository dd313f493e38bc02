package evidence

// Meaning explains a code to whoever has to mend the fault.
type Meaning struct {
	Code   Code
	Text   string // what it means
	Remedy string // what to look at first
}

// Meanings lists all codes, in the order of the legs. docs/attestation.md shows
// the same texts.
func Meanings() []Meaning {
	return []Meaning{
		{PlatformNone, "no confidential platform was found, or not the configured one", "launch the guest as a confidential VM; the image's kernel needs the platform's guest driver; `sample` must be named in `attestation.tee`"},
		{PlatformWrong, "the guest runs on another platform than `attestation.tee` names", "correct or remove `attestation.tee` in the image's file, or launch on the other platform"},
		{PlatformUnsupported, "the platform's report or quote has a version, processor or privilege level that verifiers do not read, or the platform is SEV, SEV-ES, CSV or SGX", "update the host's firmware and hypervisor, or the agent where the platform is newer; launch the guest at VMPL 0; enable SNP in place of SEV"},
		{InitdataRefused, "the initdata document is not the one the hardware was launched with, or no hardware vouches for it", "compare `agent-ctl initdata show` with what the runtime passes to the hypervisor; without hardware only `attestation.allow_unbound_initdata = true` in the image's file admits a document"},
		{InitdataMalformed, "the initdata document cannot be read", "build it with `agent-ctl initdata build`; more than one disk with a document is refused too"},
		{DriverDevice, "the platform's device is not there or cannot be opened", "load the guest driver (`tdx_guest`, `sev-guest`, `tpm_crb`) or build it into the kernel; run as root"},
		{DriverIoctl, "the device refuses the request for a report", "look into the guest's kernel log; on SNP the host may throttle or miss the message key"},
		{DriverConfigfs, "the kernel's report interface fails", "mount configfs at /sys/kernel/config; the kernel needs CONFIG_TSM_REPORTS and the guest driver"},
		{DriverReply, "the answer is no statement about this request", "the host's side does not pass on what the platform wrote; look at its quoting service and hypervisor"},
		{DriverEventLog, "the event log of firmware or agent cannot be read or has no end", "update the guest firmware; look at the ACPI table CCEL"},
		{DriverRegisters, "the event log is enabled and the platform has no register to extend", "use Linux 6.16 or later on TDX; on a TPM let `eventlog_config.init_pcr` be 9 or 11 to 15; or leave `eventlog_config.enable_eventlog` off"},
		{DriverHelper, "the helper of a device gives no evidence", "look whether the program behind `attestation.devices` runs, and at what it says"},
		{DriverTimeout, "platform or host did not answer in time", "look at the host's quoting service and its load, on Azure at the paravisor; attest again"},
		{EndorsementCertificates, "no certificates for the signing key are at hand", "the verifier has to fetch them; else have the host put the certificate table into the hypervisor; on Azure the guest needs a way to 169.254.169.254"},
		{EndorsementQuoting, "the host's quoting service gives no quote", "on the host start the quoting service (QGS), register the platform, and pass its socket to the hypervisor; or set `port=` in /etc/tdx-attest.conf; on Azure the guest needs a way to 169.254.169.254"},
		{TransportConfig, "no key broker is configured, or its URL, certificate or proxy cannot be used", "set `token_configs.kbs.url` in aa.toml of the initdata, or in the image's file, as http://HOST:PORT or https://HOST:PORT"},
		{TransportDNS, "the broker's name is not resolved", "look at the guest's /etc/resolv.conf and the pod's DNS policy; name the broker by address"},
		{TransportRefused, "nobody listens at the broker's address", "start the broker; compare its port with the URL; open the firewall"},
		{TransportTLS, "what answers does not speak TLS, or not with us", "use http:// or give the broker a certificate; TLS 1.2 is the least"},
		{TransportCertificate, "the broker's certificate is not trusted, not for this name, or not valid by the guest's clock", "put its root into `token_configs.kbs.cert`; compare the name in the URL; look at the guest's clock"},
		{TransportProxy, "the proxy cannot be used or refuses", "look at `proxy.https_proxy` and `proxy.no_proxy` of aa.toml"},
		{TransportTimeout, "the broker did not answer in time", "look at network policy, routes and the broker's load; a firewall that drops looks like this"},
		{TransportConnection, "the connection broke, or there is no way to the broker", "look at the guest's routes and at the broker's log"},
		{TransportBusy, "the broker or something before it answers with status 429 or 5xx", "look at the broker's log; its attestation service may be down"},
		{TransportReply, "what answers is no key broker of protocol 0.4.0", "compare the URL with the broker's; a captive portal, an ingress or a redirect may answer in its place"},
		{VerdictRefused, "the broker does not accept the evidence", "look at the attestation service's log for the reason: reference values, TCB, collateral, initdata"},
		{VerdictProtocol, "the broker opens no session for this protocol version or platform", "use a broker that speaks KBS protocol 0.4.0 and was built with this platform's verifier"},
		{VerdictSession, "the broker does not accept the session or token it just gave out", "look at the broker's clock and, behind a load balancer, whether its replicas share sessions; with two brokers, whether one trusts the other's tokens"},
		{VerdictIssuer, "a development broker answers a guest on a real platform", "use a production broker, or start the development one with `--issuer`"},
		{VerdictFault, "the broker reports a fault of its own", "look at the broker's log"},
		{PolicyDenied, "the broker's policy denies this guest the resource", "look at the broker's resource policy and at what the token says of the guest"},
		{PolicyBroken, "the broker's policy cannot be evaluated", "correct the policy on the broker"},
		{ResourceAbsent, "the broker has no such resource", "upload it to the broker, or correct repository, type and tag"},
		{ResourceMalformed, "the broker's answer holds no resource, or an empty one", "look at what was uploaded; update the broker"},
		{ResourceWrap, "the resource is not wrapped for this guest's key", "choose a `tee_key_algorithm` that the broker was built for; something between guest and broker may answer from another session"},
	}
}

// Meaning returns the explanation of the code.
func (c Code) Meaning() Meaning {
	for _, m := range Meanings() {
		if m.Code == c {
			return m
		}
	}
	return Meaning{Code: c}
}
