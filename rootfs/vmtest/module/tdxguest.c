// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* /dev/tdx_guest: reports of the TDX module. */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/uaccess.h>
#include <uapi/linux/tdx-guest.h>

#include "platform.h"

static long tdxguest_ioctl(struct file *file, unsigned int command, unsigned long arg)
{
	struct tdx_report_req __user *req = (void __user *)arg;
	struct platform_reply reply;
	u8 data[TDX_REPORTDATA_LEN];
	int ret;

	if (command != TDX_CMD_GET_REPORT0)
		return -ENOTTY;
	if (copy_from_user(data, req->reportdata, sizeof(data)))
		return -EFAULT;
	ret = signer_ask(PLATFORM_TDREPORT, data, &reply);
	if (ret)
		return ret;
	if (reply.report_len != TDX_REPORT_LEN)
		ret = -EIO;
	else if (copy_to_user(req->tdreport, reply.report, TDX_REPORT_LEN))
		ret = -EFAULT;
	kvfree(reply.report);
	kvfree(reply.certs);
	return ret;
}

static const struct file_operations tdxguest_fops = {
	.owner          = THIS_MODULE,
	.unlocked_ioctl = tdxguest_ioctl,
};

static struct miscdevice tdxguest_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name  = "tdx_guest",
	.fops  = &tdxguest_fops,
};

int tdxguest_register(void)
{
	return misc_register(&tdxguest_device);
}

void tdxguest_unregister(void)
{
	misc_deregister(&tdxguest_device);
}
