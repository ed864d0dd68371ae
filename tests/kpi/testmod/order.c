/*
 * Three hooks, linked in different ways; debug.order says in which order they
 * ran: i or o for the direction, then a, b or c, since it was last set.
 */
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/kernel.h>
#include <sys/jail.h>
#include <sys/mbuf.h>
#include <sys/module.h>
#include <sys/socket.h>
#include <sys/sysctl.h>
#include <net/if.h>
#include <net/pfil.h>
#include <net/vnet.h>

static char record[64];
static unsigned length;
static pfil_hook_t hooks[3];

static int
show(SYSCTL_HANDLER_ARGS)
{

	(void)arg1, (void)arg2;
	record[length] = 0;
	length = 0;
	return (sysctl_handle_string(oidp, record, sizeof(record), req));
}
SYSCTL_PROC(_debug, OID_AUTO, order, CTLTYPE_STRING | CTLFLAG_RD | CTLFLAG_MPSAFE, NULL, 0, show, "A", "order of hooks");

static pfil_return_t
check(struct mbuf **mp, struct ifnet *ifp, int flags, void *ruleset, struct inpcb *inp)
{

	(void)mp, (void)ifp, (void)inp;
	if (length + 3 < sizeof(record)) {
		record[length++] = (flags & PFIL_IN) != 0 ? 'i' : 'o';
		record[length++] = *(const char *)ruleset;
	}
	return (PFIL_PASS);
}

static int
event(module_t mod, int what, void *arg)
{
	static char names[3][2] = { "a", "b", "c" };
	int i;

	(void)mod, (void)arg;
	CURVNET_SET(TD_TO_VNET(curthread));
	for (i = 0; i < 3; i++) {
		struct pfil_hook_args ha = {
			.pa_version = PFIL_VERSION, .pa_flags = PFIL_IN | PFIL_OUT, .pa_type = PFIL_TYPE_IP4,
			.pa_mbuf_chk = check, .pa_ruleset = names[i], .pa_modname = "order", .pa_rulname = names[i],
		};
		/* c appends; a and b do not. By name, by head. */
		struct pfil_link_args la = {
			.pa_version = PFIL_VERSION,
			.pa_flags = PFIL_IN | PFIL_OUT | (i == 2 ? PFIL_APPEND : 0),
			.pa_headname = "inet", .pa_modname = "order", .pa_rulname = names[i],
		};

		if (what == MOD_UNLOAD)
			pfil_remove_hook(hooks[i]);
		if (what != MOD_LOAD)
			continue;
		hooks[i] = pfil_add_hook(&ha);
		if (pfil_link(&la) != 0 || pfil_link(&la) != EEXIST)
			panic("pfil_link of %s", names[i]);
		la.pa_headname = "no such head";
		if (pfil_link(&la) != ENOENT)
			panic("pfil_link to nothing");
		la.pa_headname = "inet6";
		if (pfil_link(&la) != EINVAL)
			panic("pfil_link to another family");
		/* Out and in again. */
		la.pa_headname = "inet";
		la.pa_flags |= PFIL_UNLINK;
		if (pfil_link(&la) != 0 || pfil_link(&la) != ENOENT)
			panic("unlinking %s", names[i]);
		la.pa_flags &= ~PFIL_UNLINK;
		if (pfil_link(&la) != 0)
			panic("linking %s again", names[i]);
	}
	CURVNET_RESTORE();
	return (what == MOD_LOAD || what == MOD_UNLOAD || what == MOD_QUIESCE ? 0 : EOPNOTSUPP);
}

static moduledata_t order_data = { "order", event, NULL };
DECLARE_MODULE(order, order_data, SI_SUB_PROTO_FIREWALL, SI_ORDER_SECOND);
