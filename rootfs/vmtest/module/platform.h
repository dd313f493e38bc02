/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A confidential platform for tests: to programs it is the drivers sev-guest,
 * tdx-guest or arm-cca-guest of the kernel, and what the hardware would answer
 * comes from a program of the test image, the signer:
 *
 *	agent ── ioctl, configfs-tsm ──▶ module ── a file ──▶ signer
 *
 * Nothing here is secret or trusted; it is never part of a real image.
 */
#ifndef COFFER_PLATFORM_H
#define COFFER_PLATFORM_H

#include <linux/types.h>

/* What is asked and said over the file; rootfs/vmtest/signertest has the other end. */

#define PLATFORM_REPORT   1 /* report of SNP with the host's certificates, quote of TDX, token of CCA */
#define PLATFORM_TDREPORT 2 /* report of the TDX module */

#define PLATFORM_SEV_GUEST 0x1 /* make /dev/sev-guest */
#define PLATFORM_TDX_GUEST 0x2 /* make /dev/tdx_guest */

#define PLATFORM_BLOB_MAX (32 << 10)

/* The signer's first message: what to be. An empty provider is none. */
struct platform_hello {
	char provider[16];
	__u32 devices;
};

struct platform_question {
	__u32 number;
	__u32 kind;
	__u8 data[64];
};

/* Report and certificates follow. */
struct platform_answer {
	__u32 number;
	__s32 error; /* 0 or a negative errno */
	__u32 report_len;
	__u32 certs_len;
};

/* Both blobs are the receiver's to kvfree; certs may be NULL. */
struct platform_reply {
	u8 *report;
	size_t report_len;
	u8 *certs;
	size_t certs_len;
};

int signer_start(struct platform_hello *hello);
int signer_ask(u32 kind, const u8 data[64], struct platform_reply *reply);
void signer_stop(void);

int report_register(const char *provider);
void report_unregister(void);

int sevguest_register(void);
void sevguest_unregister(void);

int tdxguest_register(void);
void tdxguest_unregister(void);

#endif
