// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The signer says what this guest is, because the agent, who loads the module,
 * gives no parameters. All is registered when the load returns, as it is with
 * the drivers of real platforms; without a signer the load fails.
 */
#include <linux/module.h>

#include "platform.h"

static u32 devices;
static bool reports;

static void unregister_all(void)
{
	if (devices & PLATFORM_TDX_GUEST)
		tdxguest_unregister();
	if (devices & PLATFORM_SEV_GUEST)
		sevguest_unregister();
	if (reports)
		report_unregister();
	signer_stop();
}

static int register_all(const struct platform_hello *hello)
{
	int ret;

	if (hello->provider[0]) {
		ret = report_register(hello->provider);
		if (ret)
			return ret;
		reports = true;
	}
	if (hello->devices & PLATFORM_SEV_GUEST) {
		ret = sevguest_register();
		if (ret)
			return ret;
		devices |= PLATFORM_SEV_GUEST;
	}
	if (hello->devices & PLATFORM_TDX_GUEST) {
		ret = tdxguest_register();
		if (ret)
			return ret;
		devices |= PLATFORM_TDX_GUEST;
	}
	return 0;
}

static int __init platform_init(void)
{
	struct platform_hello hello;
	int ret;

	ret = signer_start(&hello);
	if (ret)
		return ret;
	ret = register_all(&hello);
	if (ret)
		unregister_all();
	return ret;
}

static void __exit platform_exit(void)
{
	unregister_all();
}

module_init(platform_init);
module_exit(platform_exit);
MODULE_DESCRIPTION("A confidential platform for tests");
MODULE_LICENSE("GPL");
