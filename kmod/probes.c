/*
 * Probes for dtrace(1); mobconn(4) says what their arguments are.
 *
 * A kernel without KDTRACE_HOOKS lacks sdt_probe_func, and the module must load
 * there too: so the name is weak. Nobody sets an id in such a kernel, and
 * without an id nothing here is called (src/probe.rs).
 */
#define	KDTRACE_HOOKS	1

#include <sys/param.h>
#include <sys/queue.h>
#include <sys/sdt.h>

#pragma weak sdt_probe_func

SDT_PROVIDER_DEFINE(mobconn);
SDT_PROBE_DEFINE2(mobconn, , , translate__in, "struct mbuf *", "int");
SDT_PROBE_DEFINE2(mobconn, , , translate__out, "struct mbuf *", "int");
SDT_PROBE_DEFINE4(mobconn, , , drop, "struct mbuf *", "int", "int", "char *");
SDT_PROBE_DEFINE2(mobconn, , , displace, "char *", "char *");
SDT_PROBE_DEFINE4(mobconn, , , rebind, "char *", "char *", "int", "uint32_t");

/* For src/probe.rs, which has looked at the id. */
void	mobconn_probe(uint32_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t);

void
mobconn_probe(uint32_t id, uintptr_t first, uintptr_t second, uintptr_t third,
    uintptr_t fourth)
{

	(*sdt_probe_func)(id, first, second, third, fourth, 0);
}
