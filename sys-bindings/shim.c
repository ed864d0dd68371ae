/*
 * The macros and inline functions of the kernel that Rust needs, one C
 * function each. No policy in here, and no array on any stack.
 */
#include "headers.h"

_Static_assert(PFIL_VERSION == 2, "the hook is written for version 2 of pfil(9)");
_Static_assert(sizeof(struct mbuf) == MSIZE && MSIZE == 256, "mbuf(9) of FreeBSD 14");

int
mobconn_m_writable(struct mbuf *m)
{

	return (M_WRITABLE(m));
}

void
mobconn_counter_u64_add(uint64_t *counter, int64_t by)
{

	counter_u64_add(counter, by);
}

void
mobconn_net_epoch_wait(void)
{

	NET_EPOCH_WAIT();
}

static void
mobconn_log_arguments(int level, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vlog(level, format, arguments);
	va_end(arguments);
}

void
mobconn_log(int level, const char *line)
{

	mobconn_log_arguments(level, "mobconn: %s\n", line);
}

SYSCTL_DECL(_net_inet);

struct sysctl_oid_list *
mobconn_sysctl_net_inet(void)
{

	return (SYSCTL_STATIC_CHILDREN(_net_inet));
}

struct vnet *
mobconn_td_to_vnet(struct thread *td)
{

	return (TD_TO_VNET(td));
}

struct vnet *
mobconn_curvnet(void)
{

	return (curvnet);
}
