package config

import "strings"

const maxPEM = 64 << 10

func attestationKeys() []Key {
	aa := func(name string, v value, doc string) Key {
		return Key{File: "attestation." + name, AA: name, Trust: Measured, value: v, Doc: doc}
	}
	cdh := func(name string, v value, doc string) Key {
		return Key{File: name, CDH: name, Trust: Measured, value: v, Doc: doc}
	}
	proxy := func(at func(*Proxy) *string) value {
		return str{at: func(c *Config) *string { return at(&c.Attestation.Proxy) }, check: isProxy, is: "URL"}
	}
	return []Key{
		{File: "aa_kbc_params", Cmdline: "agent.aa_kbc_params", Trust: Guarded, value: kbcParams{},
			Doc: "Name and URL of the key broker in one word. The keys below overrule it."},
		aa("token_configs.kbs.url", str{at: func(c *Config) *string { return &c.Attestation.KBS.URL }, check: isURL, is: "URL"}, "The key broker. Where `kbc.url` names another one, this one attests and that one gives out keys and secrets."),
		aa("token_configs.kbs.cert", str{at: func(c *Config) *string { return &c.Attestation.KBS.Cert }, max: maxPEM, is: "PEM"}, "Certificates to trust for it."),
		aa("token_configs.kbs.tee_key_algorithm", str{at: func(c *Config) *string { return &c.Attestation.KeyAlgorithm }, is: "name of an algorithm"},
			"How brokers wrap what they send: `ECDH-ES+A256KW-P256`, which is the default, `ECDH-ES+A256KW-P521`, `RSA-OAEP-256` or `ML-KEM-768+A192KW`."),
		aa("token_configs.kbs.pin_cert", boolean{at: func(c *Config) *bool { return &c.Attestation.PinCert }}, "Trust the certificates given for brokers alone, and none of the system."),
		aa("proxy.https_proxy", proxy(func(p *Proxy) *string { return &p.HTTPS }), "Proxy for brokers."),
		aa("proxy.http_proxy", proxy(func(p *Proxy) *string { return &p.HTTP }), "Proxy for brokers without TLS."),
		aa("proxy.no_proxy", str{at: func(c *Config) *string { return &c.Attestation.Proxy.NoProxy }, is: "list of hosts"}, "Brokers that are reached without a proxy."),
		aa("token_configs.coco_as.url", str{at: func(c *Config) *string { return &c.Attestation.ASURL }, check: isURL, is: "URL"}, "The attestation service, for its tokens."),
		aa("eventlog_config.enable_eventlog", boolean{at: func(c *Config) *bool { return &c.Attestation.EventLog.Enable }}, "Record what happens at run time."),
		aa("eventlog_config.init_pcr", number[uint32]{at: func(c *Config) *uint32 { return &c.Attestation.EventLog.PCR }, max: 23}, "The register that records go to. A TPM needs 9 or one of 11 to 15."),
		cdh("kbc.name", choice(func(c *Config) *string { return &c.KBC.Name }, "cc_kbc", OfflineKBC), "Where keys and secrets come from: the broker, or files of the image."),
		cdh("kbc.url", str{at: func(c *Config) *string { return &c.KBC.URL }, check: isURL, is: "URL"}, "The key broker."),
		cdh("kbc.kbs_cert", str{at: func(c *Config) *string { return &c.KBC.Cert }, max: maxPEM, is: "PEM"}, "Certificates to trust for it."),
		cdh("credentials", credentials{}, "Resources to fetch at boot, and the files they go to."),
		cdh("skip_sealed_secret_verification", boolean{at: func(c *Config) *bool { return &c.SkipSealedCheck }}, "Accept sealed secrets without looking at the signature."),
		{AA: "log.level", CDH: "log.level", Trust: Measured, value: inert{is: "no effect"}, Doc: "The level is the agent's."},
		{CDH: "socket", Trust: Measured, value: inert{is: "no effect"}, Doc: "There is no second process to talk to."},
		{CDH: "aa.aa_socket", Trust: Measured, value: inert{is: "no effect"}, Doc: "There is no second process to talk to."},
	}
}

// kbcParams is the old spelling NAME::URL.
type kbcParams struct{}

func (kbcParams) text(c *Config, s string) error {
	name, url, ok := strings.Cut(s, "::")
	if !ok || strings.Contains(url, "::") {
		return malformed("not of the form NAME::URL")
	}
	if url == "null" { // stands for none beside a broker that needs none
		url = ""
	}
	next := *c
	for _, k := range attestationKeys() {
		var err error
		switch k.File {
		case "kbc.name":
			err = k.value.tree(&next, name)
		case "kbc.url":
			err = k.value.tree(&next, url)
		}
		if err != nil {
			return err
		}
	}
	*c = next
	return nil
}

func (k kbcParams) tree(c *Config, v any) error {
	s, _ := v.(string)
	return k.text(c, s)
}

func (kbcParams) show(*Config) string { return "" }
func (kbcParams) kind() string        { return "NAME::URL" }
