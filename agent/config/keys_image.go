package config

func pullKeys() []Key {
	cdh := func(name string, v value, doc string) Key {
		return Key{File: "image." + name, CDH: "image." + name, Trust: Measured, value: v, Doc: doc}
	}
	host := func(name string, v value, doc string) Key {
		return Key{File: name, Cmdline: "agent." + name, Trust: Guarded, value: v, Doc: doc}
	}
	source := func(at func(*Image) *string) value {
		return str{at: func(c *Config) *string { return at(&c.Image) }, check: isSource, is: "kbs:/// or file:/// URI"}
	}
	text := func(at func(*Image) *string) value {
		return str{at: func(c *Config) *string { return at(&c.Image) }, max: maxPEM, is: "text"}
	}
	proxy := func(at func(*Proxy) *string) value {
		return str{at: func(c *Config) *string { return at(&c.Image.Proxy) }, check: isProxy, is: "URL"}
	}
	noProxy := str{at: func(c *Config) *string { return &c.Image.Proxy.NoProxy }, is: "list of hosts"}
	https := proxy(func(p *Proxy) *string { return &p.HTTPS })
	http := proxy(func(p *Proxy) *string { return &p.HTTP })
	return []Key{
		host("https_proxy", https, "Proxy for registries. The spelling below overrules it."),
		host("http_proxy", http, "Proxy for registries without TLS."),
		host("no_proxy", noProxy, "Hosts that are reached without a proxy."),
		host("image_registry_auth", source(func(i *Image) *string { return &i.CredentialsURI }), "Credentials for registries."),
		host("image_policy_file", str{at: func(c *Config) *string { return &c.hostImagePolicy }, check: isSource, is: "kbs:/// or file:/// URI"},
			"Image policy, unless the keys below name one. It counts only together with the next key."),
		host("enable_signature_verification", boolean{at: func(c *Config) *bool { return &c.hostImageVerify }}, "Makes the key above count. It switches nothing else off."),
		cdh("work_dir", str{at: func(c *Config) *string { return &c.Image.WorkDir }, check: isPath, is: "path"}, "Where layers are kept."),
		cdh("max_concurrent_layer_downloads_per_image", number[int]{at: func(c *Config) *int { return &c.Image.MaxLayers }, min: 1, max: 64}, "Layers fetched at the same time."),
		cdh("image_security_policy_uri", source(func(i *Image) *string { return &i.PolicyURI }), "Which images may be pulled, and whose signatures they need."),
		cdh("image_security_policy", text(func(i *Image) *string { return &i.Policy }), "The same as JSON text; the URI overrules it."),
		cdh("sigstore_config_uri", source(func(i *Image) *string { return &i.SigstoreURI }), "Where simple signatures are kept."),
		cdh("sigstore_config", text(func(i *Image) *string { return &i.Sigstore }), "The same as YAML text; the URI overrules it."),
		cdh("authenticated_registry_credentials_uri", source(func(i *Image) *string { return &i.CredentialsURI }), "Credentials for registries."),
		cdh("registry_configuration_uri", source(func(i *Image) *string { return &i.RegistriesURI }), "Mirrors, replacements and blocks of registries; the table overrules it."),
		cdh("registry_config", registries{}, "The same as a table."),
		cdh("image_pull_proxy.https_proxy", https, "Proxy for registries."),
		cdh("image_pull_proxy.http_proxy", http, "Proxy for registries without TLS."),
		cdh("image_pull_proxy.no_proxy", noProxy, "Hosts that are reached without a proxy."),
		cdh("extra_root_certificates", list{at: func(c *Config) *[]string { return &c.Image.ExtraRoots }, max: maxPEM}, "Certificates to trust for registries and proxies, as PEM."),
	}
}
