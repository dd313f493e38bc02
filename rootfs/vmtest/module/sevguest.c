// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * /dev/sev-guest as Documentation/virt/coco/sev-guest.rst has it: reports, and
 * reports with certificates. Derived keys are refused.
 */
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <uapi/linux/sev-guest.h>

#include "platform.h"

#define CERTS_MAX   (16 << 10) /* SEV_FW_BLOB_MAX_SIZE */
#define RESP_HEADER 32         /* of MSG_REPORT_RSP: status, size, reserved */

static int ask(const struct snp_report_req *req, struct platform_reply *reply)
{
	if (req->vmpl > 3 || memchr_inv(req->rsvd, 0, sizeof(req->rsvd)))
		return -EINVAL;
	return signer_ask(PLATFORM_REPORT, req->user_data, reply);
}

static int copy_report(const struct snp_guest_request_ioctl *io, const struct platform_reply *reply)
{
	struct snp_report_resp *resp;
	u32 size = reply->report_len;
	int ret = 0;

	if (size > sizeof(resp->data) - RESP_HEADER)
		return -EIO;
	resp = kzalloc(sizeof(*resp), GFP_KERNEL);
	if (!resp)
		return -ENOMEM;
	memcpy(resp->data + 4, &size, sizeof(size));
	memcpy(resp->data + RESP_HEADER, reply->report, size);
	if (copy_to_user(u64_to_user_ptr(io->resp_data), resp, sizeof(*resp)))
		ret = -EFAULT;
	kfree(resp);
	return ret;
}

static int get_report(struct snp_guest_request_ioctl *io)
{
	struct snp_report_req req;
	struct platform_reply reply;
	int ret;

	if (copy_from_user(&req, u64_to_user_ptr(io->req_data), sizeof(req)))
		return -EFAULT;
	ret = ask(&req, &reply);
	if (ret)
		return ret;
	ret = copy_report(io, &reply);
	kvfree(reply.report);
	kvfree(reply.certs);
	return ret;
}

/* Certificates for which the room is too small are told by the length that they need. */
static int copy_certs(struct snp_guest_request_ioctl *io, struct snp_ext_report_req *req, const struct platform_reply *reply)
{
	if (reply->certs_len > req->certs_len) {
		req->certs_len = PAGE_ALIGN(reply->certs_len);
		io->exitinfo2 = SNP_GUEST_VMM_ERR(SNP_GUEST_VMM_ERR_INVALID_LEN);
		if (copy_to_user(u64_to_user_ptr(io->req_data), req, sizeof(*req)))
			return -EFAULT;
		return -EIO;
	}
	if (reply->certs_len && copy_to_user(u64_to_user_ptr(req->certs_address), reply->certs, reply->certs_len))
		return -EFAULT;
	return 0;
}

static int get_ext_report(struct snp_guest_request_ioctl *io)
{
	struct snp_ext_report_req req;
	struct platform_reply reply;
	int ret;

	if (copy_from_user(&req, u64_to_user_ptr(io->req_data), sizeof(req)))
		return -EFAULT;
	if (req.certs_len > CERTS_MAX || !IS_ALIGNED(req.certs_len, PAGE_SIZE))
		return -EINVAL;
	if (!req.certs_address)
		req.certs_len = 0;
	ret = ask(&req.data, &reply);
	if (ret)
		return ret;
	ret = copy_certs(io, &req, &reply);
	if (!ret)
		ret = copy_report(io, &reply);
	kvfree(reply.report);
	kvfree(reply.certs);
	return ret;
}

static long sevguest_ioctl(struct file *file, unsigned int command, unsigned long arg)
{
	struct snp_guest_request_ioctl io;
	void __user *user = (void __user *)arg;
	int ret;

	if (copy_from_user(&io, user, sizeof(io)))
		return -EFAULT;
	if (!io.msg_version || !io.req_data || !io.resp_data)
		return -EINVAL;
	io.exitinfo2 = 0xff; /* SEV_RET_NO_FW_CALL */
	switch (command) {
	case SNP_GET_REPORT:
		ret = get_report(&io);
		break;
	case SNP_GET_EXT_REPORT:
		ret = get_ext_report(&io);
		break;
	default:
		return -ENOTTY;
	}
	if (!ret)
		io.exitinfo2 = 0;
	if (copy_to_user(user, &io, sizeof(io)))
		return -EFAULT;
	return ret;
}

static const struct file_operations sevguest_fops = {
	.owner          = THIS_MODULE,
	.unlocked_ioctl = sevguest_ioctl,
};

static struct miscdevice sevguest_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name  = "sev-guest",
	.fops  = &sevguest_fops,
};

int sevguest_register(void)
{
	return misc_register(&sevguest_device);
}

void sevguest_unregister(void)
{
	misc_deregister(&sevguest_device);
}
