#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

/*
 * early runs before every constructor without a priority, so before nsenter's,
 * and before the Go runtime reads its environment.
 *
 * As PID 1 the environment is whatever key=value words of the kernel command
 * line the kernel did not know, and the host writes that line. nsenter obeys
 * _LIBCONTAINER_INITPIPE, the Go runtime obeys GODEBUG and GOTRACEBACK. The
 * strings are wiped in place: the Go runtime finds the auxiliary vector by
 * walking over this array, so its length has to stay.
 *
 * In a container's init, signals that the agent or its launcher ignores would
 * stay ignored in the user's program, because execve keeps that disposition,
 * and the Go runtime in between respects it for SIGHUP and SIGINT.
 */
static void __attribute__((constructor(101))) early(void)
{
	if (getpid() == 1) {
		for (char **e = environ; e && *e; e++)
			memset(*e, 0, strlen(*e));
		return;
	}
	if (!getenv("_LIBCONTAINER_INITPIPE"))
		return;
	/* By system call: the C library hides the two signals that it uses itself. */
	for (int sig = 1; sig < NSIG; sig++) {
		uintptr_t old[8] = { 0 }, plain[8] = { 0 }; /* the handler comes first */

		if (syscall(SYS_rt_sigaction, sig, NULL, old, 8) == 0 && old[0] == (uintptr_t)SIG_IGN)
			syscall(SYS_rt_sigaction, sig, plain, NULL, 8);
	}
}
