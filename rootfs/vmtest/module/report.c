// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* The provider of configfs-tsm, /sys/kernel/config/tsm/report. */
#include <linux/string.h>
#include <linux/tsm.h>

#include "platform.h"

static char name[16];

static bool is_snp(void)
{
	return !strcmp(name, "sev_guest");
}

/* The blobs become the report's, which frees them. */
static int report_new(struct tsm_report *report, void *data)
{
	struct platform_reply reply;
	int ret;

	if (report->desc.inblob_len != 64 || report->desc.privlevel)
		return -EINVAL;
	ret = signer_ask(PLATFORM_REPORT, report->desc.inblob, &reply);
	if (ret)
		return ret;
	report->outblob = reply.report;
	report->outblob_len = reply.report_len;
	report->auxblob = reply.certs;
	report->auxblob_len = reply.certs_len;
	return 0;
}

static bool attr_visible(int n)
{
	switch (n) {
	case TSM_REPORT_GENERATION:
	case TSM_REPORT_PROVIDER:
		return true;
	case TSM_REPORT_PRIVLEVEL:
	case TSM_REPORT_PRIVLEVEL_FLOOR:
		return is_snp();
	}
	return false;
}

static bool bin_attr_visible(int n)
{
	switch (n) {
	case TSM_REPORT_INBLOB:
	case TSM_REPORT_OUTBLOB:
		return true;
	case TSM_REPORT_AUXBLOB:
		return is_snp();
	}
	return false;
}

static const struct tsm_ops ops = {
	.name                    = name,
	.report_new              = report_new,
	.report_attr_visible     = attr_visible,
	.report_bin_attr_visible = bin_attr_visible,
};

int report_register(const char *provider)
{
	strscpy(name, provider, sizeof(name));
	return tsm_register(&ops, NULL);
}

void report_unregister(void)
{
	tsm_unregister(&ops);
}
