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

struct thread *
mobconn_curthread(void)
{

	return (curthread);
}

struct vnet *
mobconn_curvnet(void)
{

	return (curvnet);
}

struct vnet *
mobconn_curvnet_set(struct vnet *vnet)
{
	struct vnet *before = curvnet;

	curvnet = vnet;
	return (before);
}

void
mobconn_net_epoch_enter(struct epoch_tracker *tracker)
{

	NET_EPOCH_ENTER(*tracker);
}

void
mobconn_net_epoch_exit(struct epoch_tracker *tracker)
{

	NET_EPOCH_EXIT(*tracker);
}

void
mobconn_task_init(struct task *task, task_fn_t *function, void *context)
{

	TASK_INIT(task, 0, function, context);
}

void
mobconn_timeout_task_init(struct timeout_task *task, task_fn_t *function, void *context)
{

	TIMEOUT_TASK_INIT(taskqueue_thread, task, 0, function, context);
}

uint64_t
mobconn_microuptime(void)
{
	struct timeval now;

	microuptime(&now);
	return ((uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_usec);
}

size_t
mobconn_uio_resid(const struct uio *uio)
{

	return (uio->uio_resid < 0 ? 0 : (size_t)uio->uio_resid);
}

static struct inpcb *
lookup(const struct mobconn_side *side, int flags)
{
	struct inpcbinfo *info = side->is_udp ? &V_udbinfo : &V_tcbinfo;

	if (side->is_ipv6) {
		struct in6_addr local, remote;

		memcpy(&local, side->local, sizeof(local));
		memcpy(&remote, side->remote, sizeof(remote));
		return (in6_pcblookup(info, &remote, side->remote_port,
		    &local, side->local_port, flags, NULL));
	} else {
		struct in_addr local, remote;

		memcpy(&local, side->local, sizeof(local));
		memcpy(&remote, side->remote, sizeof(remote));
		return (in_pcblookup(info, remote, side->remote_port, local,
		    side->local_port, flags, NULL));
	}
}

int
mobconn_is_connected(const struct mobconn_side *side)
{
	struct epoch_tracker tracker;
	struct inpcb *inp;

	NET_EPOCH_ENTER(tracker);
	inp = lookup(side, INPLOOKUP_RLOCKPCB);
	if (inp != NULL)
		INP_RUNLOCK(inp);
	NET_EPOCH_EXIT(tracker);
	return (inp != NULL);
}

/*
 * Not at the last try, whose failure would end the connection; and only the
 * default TCP, because others keep timers of their own.
 */
static int
resume(struct tcpcb *tp)
{

	if (strcmp(tp->t_fb->tfb_tcp_block_name, "freebsd") != 0 ||
	    tp->t_rxtshift < 0 ||
	    tp->t_rxtshift >= TCP_MAXRXTSHIFT - 1)
		return (0);
	if (tcp_timer_active(tp, TT_REXMT))
		tcp_timer_activate(tp, TT_REXMT, 1);
	else if (tcp_timer_active(tp, TT_PERSIST))
		tcp_timer_activate(tp, TT_PERSIST, 1);
	else
		return (0);
	return (1);
}

static int
mobconn_resume_with(const struct mobconn_side *side, u_int lost)
{
	struct epoch_tracker tracker;
	struct inpcb *inp;
	int resumed = 0;

	NET_EPOCH_ENTER(tracker);
	inp = lookup(side, INPLOOKUP_WLOCKPCB);
	if (inp != NULL) {
		intotcpcb(inp)->t_flags &= ~lost;
		resumed = resume(intotcpcb(inp));
		INP_WUNLOCK(inp);
	}
	NET_EPOCH_EXIT(tracker);
	return (resumed);
}

int
mobconn_tcp_resume(const struct mobconn_side *side)
{

	return (mobconn_resume_with(side, 0));
}

int
mobconn_tcp_no_tso(const struct mobconn_side *side)
{

	return (mobconn_resume_with(side, TF_TSO));
}

/* 0 stands for no limit. */
static int
narrower(u_int now, u_int before)
{

	return (now != 0 && (before == 0 || now < before));
}

/* Whether what TCP made for one interface is too much for another's TSO. */
static int
overtaxes(if_t now, if_t before)
{

	return (now != before && (
	    narrower(if_gethwtsomax(now), if_gethwtsomax(before)) ||
	    narrower(if_gethwtsomaxsegcount(now), if_gethwtsomaxsegcount(before)) ||
	    narrower(if_gethwtsomaxsegsize(now), if_gethwtsomaxsegsize(before))));
}

int
mobconn_way(struct mbuf *m, int is_ipv6, struct ifnet *before,
    struct mobconn_way *way)
{
	const u_int tso = m->m_pkthdr.csum_flags & CSUM_TSO;
	struct m_tag *gateway = NULL;
	struct nhop_object *nh;

	if ((m->m_flags & M_IP_NEXTHOP) != 0)
		gateway = m_tag_find(m, PACKET_TAG_IPFORWARD, NULL);
	if (is_ipv6) {
		struct in6_addr to = mtod(m, struct ip6_hdr *)->ip6_dst;
		uint32_t scope;

		if (gateway != NULL)
			to = ((struct sockaddr_in6 *)(gateway + 1))->sin6_addr;
		in6_splitscope(&to, &to, &scope);
		nh = fib6_lookup(M_GETFIB(m), &to, scope, NHR_NONE,
		    m->m_pkthdr.flowid);
	} else {
		struct in_addr to = mtod(m, struct ip *)->ip_dst;

		if (gateway != NULL)
			to = ((struct sockaddr_in *)(gateway + 1))->sin_addr;
		nh = fib4_lookup(M_GETFIB(m), to, 0, NHR_NONE,
		    m->m_pkthdr.flowid);
	}
	if (nh == NULL)
		return (0);
	way->interface = nh->nh_ifp;
	way->mtu = nh->nh_mtu;
	way->tso = (if_gethwassist(nh->nh_ifp) & tso) == tso &&
	    (before == NULL || !overtaxes(nh->nh_ifp, before));
	return (1);
}

struct mbuf *
mobconn_received(const void *bytes, int length, struct ifnet *interface,
    int fib)
{
	struct mbuf *m;

	m = m_gethdr(M_NOWAIT, MT_DATA);
	if (m == NULL)
		return (NULL);
	memcpy(mtod(m, void *), bytes, length);
	m->m_len = m->m_pkthdr.len = length;
	m->m_pkthdr.rcvif = interface;
	M_SETFIB(m, fib);
	return (m);
}

_Static_assert(M_IP_NEXTHOP == M_IP6_NEXTHOP, "one flag for both");

int
mobconn_next_hop(struct mbuf *m, const uint8_t *gateway, int is_ipv6)
{
	struct m_tag *tag;

	tag = m_tag_get(PACKET_TAG_IPFORWARD, is_ipv6 ?
	    sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in), M_NOWAIT);
	if (tag == NULL)
		return (ENOBUFS);
	memset(tag + 1, 0, tag->m_tag_len);
	if (is_ipv6) {
		struct sockaddr_in6 *to = (struct sockaddr_in6 *)(tag + 1);

		to->sin6_len = sizeof(*to);
		to->sin6_family = AF_INET6;
		memcpy(&to->sin6_addr, gateway, sizeof(to->sin6_addr));
	} else {
		struct sockaddr_in *to = (struct sockaddr_in *)(tag + 1);

		to->sin_len = sizeof(*to);
		to->sin_family = AF_INET;
		memcpy(&to->sin_addr, gateway, sizeof(to->sin_addr));
	}
	m_tag_prepend(m, tag);
	m->m_flags |= M_IP_NEXTHOP;
	return (0);
}

const struct _pfil_head *
mobconn_pfil_head(int is_ipv6)
{
	pfil_head_t head = is_ipv6 ? V_inet6_pfil_head : V_inet_pfil_head;

	return ((const struct _pfil_head *)head);
}
