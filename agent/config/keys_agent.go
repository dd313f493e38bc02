package config

import (
	"math"
	"time"
)

// maxPersistent is the last handle of keys that a TPM keeps.
const maxPersistent = 0x81ffffff

func imageKeys() []Key {
	return []Key{
		{File: "trust_cmdline", Trust: Measured, value: boolean{at: func(c *Config) *bool { return &c.TrustCmdline }},
			Doc: "The command line and the environment count as much as this file. For development."},
		{File: "attestation.tee", Trust: Measured, value: str{at: func(c *Config) *string { return &c.Attestation.TEE }, check: isTEE, is: "name of a platform"},
			Doc: "Expect this platform. Empty finds it. `sample` makes evidence that proves nothing, and is the only way to it; in a guest without a TEE it also makes the command line trusted."},
		{File: "attestation.allow_unbound_initdata", Trust: Measured, value: boolean{at: func(c *Config) *bool { return &c.Attestation.AllowUnbound }},
			Doc: "Accept initdata also on a platform that cannot tell the owner's from the host's, such as a plain VM, also with a TPM. For laptops and CI."},
		{File: "attestation.tpm_device", Trust: Measured, value: str{at: func(c *Config) *string { return &c.Attestation.TPM.Device }, check: isPath, is: "path"},
			Doc: "The TPM with the attestation key. Empty looks at `/dev/tpmrm0` and `/dev/tpm0` to `/dev/tpm2`."},
		{File: "attestation.tpm_ak_handle", Trust: Measured, value: number[uint32]{at: func(c *Config) *uint32 { return &c.Attestation.TPM.AKHandle }, max: maxPersistent},
			Doc: "Persistent handle of the attestation key, such as 0x81010002, which 0 stands for."},
		{File: "attestation.devices", Trust: Measured, value: list{at: func(c *Config) *[]string { return &c.Attestation.Devices }, max: maxString},
			Doc: "Devices whose evidence goes along with the platform's: `KIND=/SOCKET` of a helper program (docs/attestation.md), such as `nvidia=/run/nvidia.sock`, or `sampledevice`, which proves nothing."},
		{File: "server_peer_cids", Trust: Measured, value: cids{},
			Doc: "Vsock addresses that may connect. Empty is the host alone, which is 2."},
		{File: "pause_bundle", Trust: Measured, value: str{at: func(c *Config) *string { return &c.PauseBundle }, check: isPath, is: "path"},
			Doc: "Bundle of the pause container."},
		{File: "clock_floor", AA: "clock_floor", Trust: Measured, value: moment{at: func(c *Config) *time.Time { return &c.ClockFloor }},
			Doc: "The guest's clock never shows an earlier time, whatever the host says. The build of the agent is such a floor too."},
		{File: "policy_file", Env: "KATA_AGENT_POLICY_FILE", Trust: Guarded, value: str{at: func(c *Config) *string { return &c.Policy.File }, check: isPath, is: "path"},
			Doc: "Policy at boot, until initdata or the owner brings another one. Without any policy every call is denied."},
		{Cmdline: configFileKey, Trust: Guarded, value: inert{is: "path"},
			Doc: "This file replaces the image's file, the command line and the environment."},
	}
}

func agentKeys() []Key {
	return []Key{
		{File: "server_addr", Cmdline: "agent.server_addr", Env: "KATA_AGENT_SERVER_ADDR", Trust: Guarded,
			value: str{at: func(c *Config) *string { return &c.Server.Addr }, check: isServer, is: "vsock://CID:PORT or unix://PATH"},
			Doc:   "Where the host reaches the agent."},
		{File: "passfd_listener_port", Cmdline: "agent.passfd_listener_port", Trust: Guarded, value: port(func(c *Config) *uint32 { return &c.Server.PassFDPort }),
			Doc: "Vsock port for streams of containers that go round the API. 0 is off."},
		{File: "log_level", Cmdline: "agent.log", Env: "KATA_AGENT_LOG_LEVEL", Trust: Guarded, Weakens: talkative, value: level{},
			Doc: "What is logged. Only `debug` and `trace` are guarded."},
		{File: "log_vport", Cmdline: "agent.log_vport", Trust: Guarded, value: port(func(c *Config) *uint32 { return &c.Log.VPort }),
			Doc: "Vsock port on which the host collects the log. 0 is standard output."},
		{File: "debug_console", Cmdline: "agent.debug_console", Bare: true, NoValue: true, Trust: Guarded, value: boolean{at: func(c *Config) *bool { return &c.Console.Enabled }},
			Doc: "A root shell for the host, beside every policy."},
		{File: "debug_console_vport", Cmdline: "agent.debug_console_vport", Trust: Guarded, value: port(func(c *Config) *uint32 { return &c.Console.VPort }),
			Doc: "Vsock port of the debug console. 0 is the serial console."},
		{File: "tracing", Cmdline: "agent.trace", Bare: true, Env: "KATA_AGENT_TRACING", Trust: Guarded, value: boolean{at: func(c *Config) *bool { return &c.Trace }},
			Doc: "Spans of calls go to vsock port 10240 of the host as OTLP over HTTP. Only an agent built with the tag `tracing` can; others say so in their log."},
		{File: "dev_mode", Cmdline: "agent.devmode", Bare: true, NoValue: true, Trust: Guarded, value: boolean{at: func(c *Config) *bool { return &c.DevMode }},
			Doc: "Known for its name, without effect."},
		{File: "container_pipe_size", Cmdline: "agent.container_pipe_size", value: number[int]{at: func(c *Config) *int { return &c.Container.PipeSize }, max: 1 << 20},
			Doc: "Bytes in the pipes of containers' output. 0 is the kernel's choice."},
		{File: "visible_cdi_devices", Cmdline: "agent.visible_cdi_devices", Trust: Guarded, value: boolean{at: func(c *Config) *bool { return &c.Container.VisibleCDIDevices }},
			Doc: "Containers get the CDI devices that their variable VISIBLE_CDI_DEVICES names."},
		{File: "unified_cgroup_hierarchy", Cmdline: "systemd.unified_cgroup_hierarchy", value: boolean{at: func(c *Config) *bool { return &c.Cgroup.Unified }},
			Doc: "A guest without systemd mounts cgroup v2."},
		{Cmdline: "cgroup_no_v1", value: allWord{}, Doc: "`all` also means cgroup v2."},
		{File: "secure_storage_integrity", Cmdline: "agent.secure_storage_integrity", Trust: Guarded, value: boolean{at: func(c *Config) *bool { return &c.Storage.Integrity }},
			Doc: "Encrypted scratch space also detects changes."},
	}
}

func port(at func(*Config) *uint32) number[uint32] {
	return number[uint32]{at: at, max: math.MaxInt32}
}

func timeoutKeys() []Key {
	timeout := func(name string, at func(*Timeouts) *time.Duration, max int64, doc string) Key {
		return Key{File: name, Cmdline: "agent." + name, Doc: doc,
			value: seconds{at: func(c *Config) *time.Duration { return at(&c.Timeouts) }, max: max}}
	}
	return []Key{
		timeout("hotplug_timeout", func(t *Timeouts) *time.Duration { return &t.Hotplug }, 600, "For a device to appear. 0 waits as long as the caller does."),
		timeout("cdh_api_timeout", func(t *Timeouts) *time.Duration { return &t.Secret }, 3600, "For a secret or a secure mount."),
		timeout("image_pull_timeout", func(t *Timeouts) *time.Duration { return &t.ImagePull }, 86400, "For an image."),
		timeout("cdi_timeout", func(t *Timeouts) *time.Duration { return &t.CDI }, 3600, "For the description of a CDI device to appear."),
		timeout("launch_process_timeout", func(t *Timeouts) *time.Duration { return &t.Launch }, 600, "For a part of the guest to come up."),
	}
}

func componentKeys() []Key {
	return []Key{
		{File: "guest_components_procs", Cmdline: "agent.guest_components_procs", Trust: Guarded,
			value: choice(func(c *Config) *string { return &c.Workload.Procs }, "none", "attestation-agent", "confidential-data-hub", "api-server-rest"),
			Doc:   "The parts of the reference guest whose work is done. `api-server-rest` serves the HTTP API for containers on 127.0.0.1:8006; the two whose sockets are not built end the boot."},
		{File: "guest_components_rest_api", Cmdline: "agent.guest_components_rest_api", Trust: Guarded,
			value: choice(func(c *Config) *string { return &c.Workload.API }, "resource", "attestation", "all"),
			Doc:   "What the HTTP API for containers offers. What needs evidence is not built and ends the boot."},
	}
}
