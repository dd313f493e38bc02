// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The way to the signer. The module starts it with a file as its standard
 * input and output, which no other process can have. It reads a question there
 * and writes the answer, one at a time; an answer that is late, malformed or to another
 * question is refused, and once the signer is gone every question is.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kmod.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pid.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#include "platform.h"

#define SIGNER_PATH "/usr/lib/coffer-test/signer"
#define HELLO_TIME  (60 * HZ)
#define ANSWER_TIME (5 * HZ)

static DEFINE_MUTEX(turn);   /* held by who asks, outside of state */
static DEFINE_MUTEX(state);  /* guards what follows */
static DECLARE_WAIT_QUEUE_HEAD(moved);
static struct pid *signer;
static bool opened;          /* the signer has the file */
static bool greeted;         /* hello is set */
static bool gone;            /* nobody will answer any more */
static bool unread;          /* question waits for the signer */
static bool unanswered;      /* somebody waits for the answer */
static struct platform_hello greeting;
static struct platform_question question;
static struct platform_reply reply;
static int error;

static int signer_release(struct inode *inode, struct file *file)
{
	mutex_lock(&state);
	opened = false;
	gone = true;
	mutex_unlock(&state);
	wake_up_all(&moved);
	return 0;
}

static ssize_t signer_read(struct file *file, char __user *to, size_t size, loff_t *at)
{
	ssize_t ret = 0;

	if (size < sizeof(question))
		return -EINVAL;
	if (wait_event_interruptible(moved, READ_ONCE(unread) || READ_ONCE(gone)))
		return -ERESTARTSYS;
	mutex_lock(&state);
	if (!gone && !unread) {
		ret = -EAGAIN; /* who asked has given up */
	} else if (!gone) {
		unread = false;
		ret = copy_to_user(to, &question, sizeof(question)) ? -EFAULT : sizeof(question);
	}
	mutex_unlock(&state);
	return ret;
}

static int take_hello(const void *message, size_t size)
{
	const struct platform_hello *h = message;

	if (size != sizeof(*h) || strnlen(h->provider, sizeof(h->provider)) == sizeof(h->provider) ||
	    h->devices & ~(PLATFORM_SEV_GUEST | PLATFORM_TDX_GUEST))
		return -EINVAL;
	greeting = *h;
	greeted = true;
	return 0;
}

static int take_answer(const void *message, size_t size)
{
	const struct platform_answer *a = message;
	const u8 *blobs = message + sizeof(*a);

	if (size < sizeof(*a) || a->report_len > PLATFORM_BLOB_MAX || a->certs_len > PLATFORM_BLOB_MAX ||
	    size != sizeof(*a) + a->report_len + a->certs_len ||
	    a->error > 0 || a->error < -MAX_ERRNO || !a->error == !a->report_len)
		return -EINVAL;
	if (!unanswered || a->number != question.number)
		return -ESTALE;
	error = a->error;
	if (a->report_len) {
		reply.report = kvmemdup(blobs, a->report_len, GFP_KERNEL);
		reply.report_len = a->report_len;
	}
	if (a->certs_len) {
		reply.certs = kvmemdup(blobs + a->report_len, a->certs_len, GFP_KERNEL);
		reply.certs_len = a->certs_len;
	}
	if ((a->report_len && !reply.report) || (a->certs_len && !reply.certs))
		error = -ENOMEM;
	unanswered = false;
	return 0;
}

static ssize_t signer_write(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	void *message;
	int ret;

	if (size > sizeof(struct platform_answer) + 2 * PLATFORM_BLOB_MAX)
		return -EMSGSIZE;
	message = vmemdup_user(from, size);
	if (IS_ERR(message))
		return PTR_ERR(message);
	mutex_lock(&state);
	ret = greeted ? take_answer(message, size) : take_hello(message, size);
	mutex_unlock(&state);
	kvfree(message);
	wake_up_all(&moved);
	return ret ? ret : size;
}

static const struct file_operations signer_fops = {
	.owner   = THIS_MODULE,
	.release = signer_release,
	.read    = signer_read,
	.write   = signer_write,
};

int signer_ask(u32 kind, const u8 data[64], struct platform_reply *out)
{
	int ret;

	ret = mutex_lock_killable(&turn);
	if (ret)
		return ret;
	mutex_lock(&state);
	question.number++;
	question.kind = kind;
	memcpy(question.data, data, sizeof(question.data));
	reply = (struct platform_reply){};
	error = -ETIMEDOUT;
	unread = unanswered = true;
	mutex_unlock(&state);
	wake_up_all(&moved);

	wait_event_killable_timeout(moved, !READ_ONCE(unanswered) || READ_ONCE(gone), ANSWER_TIME);

	mutex_lock(&state);
	ret = unanswered && gone ? -EIO : error;
	unread = unanswered = false;
	*out = reply;
	mutex_unlock(&state);
	mutex_unlock(&turn);
	if (ret) {
		kvfree(out->report);
		kvfree(out->certs);
	}
	return ret;
}

/*
 * Runs as the new process, before it becomes the signer. It has no other files,
 * and Go ends a program without standard ones where there is no /dev/null.
 */
static int give_file(struct subprocess_info *info, struct cred *cred)
{
	struct file *file;
	int fd, i, ret = 0;

	file = anon_inode_getfile("[coffer-signer]", &signer_fops, NULL, O_RDWR);
	if (IS_ERR(file))
		return PTR_ERR(file);
	mutex_lock(&state);
	signer = get_pid(task_tgid(current));
	opened = true;
	mutex_unlock(&state);
	for (i = 0; i < 3 && !ret; i++) {
		fd = get_unused_fd_flags(0);
		if (fd >= 0)
			fd_install(fd, get_file(file));
		if (fd != i)
			ret = fd < 0 ? fd : -EBUSY;
	}
	fput(file);
	return ret;
}

int signer_start(struct platform_hello *hello)
{
	static char *argv[] = { SIGNER_PATH, NULL }, *envp[] = { NULL };
	struct subprocess_info *info;
	int ret;

	info = call_usermodehelper_setup(SIGNER_PATH, argv, envp, GFP_KERNEL, give_file, NULL, NULL);
	ret = info ? call_usermodehelper_exec(info, UMH_WAIT_EXEC) : -ENOMEM;
	if (!ret && !wait_event_timeout(moved, READ_ONCE(greeted) || READ_ONCE(gone), HELLO_TIME))
		ret = -ETIMEDOUT;
	mutex_lock(&state);
	if (!ret && !greeted)
		ret = -EIO;
	*hello = greeting;
	mutex_unlock(&state);
	if (ret)
		signer_stop();
	return ret;
}

/* The module may not leave before the signer has let go of it. */
void signer_stop(void)
{
	mutex_lock(&state);
	gone = true;
	mutex_unlock(&state);
	wake_up_all(&moved);
	if (!signer)
		return;
	kill_pid(signer, SIGKILL, 1);
	wait_event(moved, !READ_ONCE(opened));
	put_pid(signer);
}
