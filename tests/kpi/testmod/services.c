/*
 * A module that uses tasks, connections, queues, reassembly and routes as they
 * are meant to be used; the test services says what to do, by ioctl(2).
 */
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/conf.h>
#include <sys/epoch.h>
#include <sys/jail.h>
#include <sys/kernel.h>
#include <sys/lock.h>
#include <sys/malloc.h>
#include <sys/mbuf.h>
#include <sys/module.h>
#include <sys/mutex.h>
#include <sys/proc.h>
#include <sys/rwlock.h>
#include <sys/socket.h>
#include <sys/sx.h>
#include <sys/taskqueue.h>
#include <net/if.h>
#include <net/if_var.h>
#include <net/netisr.h>
#include <net/pfil.h>
#include <net/route.h>
#include <net/route/nhop.h>
#include <net/vnet.h>
#include <netinet/in.h>
#include <netinet/in_pcb.h>
#include <netinet/in_var.h>
#include <netinet/in_fib.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_var.h>
#include <netinet/tcp.h>
#include <netinet/tcp_timer.h>
#include <netinet/tcp_var.h>
#include <netinet/udp.h>
#include <netinet/udp_var.h>
#include <netinet6/in6_fib.h>
#include <netinet6/in6_pcb.h>
#include <netinet6/in6_var.h>
#include <netinet6/ip6_var.h>

/* Known to src of the test, too. */
struct request {
	uint32_t	what;
	int32_t		argument;
	int32_t		result;
	uint32_t	runs;
	uint32_t	pending;
	int32_t		ticks;
	uint8_t		local[16], remote[16];
	uint16_t	local_port, remote_port;	/* host order */
	uint8_t		v6, udp, flags, spare;
	char		name[32];
};
#define	REQUEST	_IOWR('S', 1, struct request)

enum {
	ENQUEUE, BURST, ARM, CANCEL, DRAIN, REPORT, LOOKUP, KICK, HOLD_IN, HOLD_OUT, RELEASE_IN, RELEASE_OUT, LOCAL, MTU,
	ARM_PERIODIC, CANCEL_TASK, PEEK, REASSEMBLE,
};

static MALLOC_DEFINE(M_SERVICES, "services", "module that uses services");
static struct sx gate;
static struct mtx lock;
static struct task plain;
static struct timeout_task timed;
static uint32_t runs, pendings;
static int period, seen, holding_in, holding_out, reassembling;
static struct mbufq held_in, held_out;
static struct cdev *device;
VNET_DEFINE_STATIC(pfil_hook_t, hook4);
VNET_DEFINE_STATIC(pfil_hook_t, hook6);
#define	V_hook4	VNET(hook4)
#define	V_hook6	VNET(hook6)

static void
handler(void *context, int pending)
{

	if (curthread->td_vnet != NULL || in_epoch(net_epoch_preempt))
		panic("a task does not begin as it should");
	free(malloc(16, M_SERVICES, M_WAITOK), M_SERVICES);
	sx_xlock(&gate);
	mtx_lock(&lock);
	runs++;
	pendings += pending;
	seen = ticks;
	if (context == &timed && period > 0)
		(void)taskqueue_enqueue_timeout(taskqueue_thread, &timed, period);
	mtx_unlock(&lock);
	sx_xunlock(&gate);
}

static struct inpcb *
find(const struct request *r, int flags)
{
	struct inpcbinfo *info = r->udp ? &V_udbinfo : &V_tcbinfo;
	struct in6_addr local, remote;
	struct in_addr local4, remote4;

	memcpy(&local, r->local, 16);
	memcpy(&remote, r->remote, 16);
	memcpy(&local4, r->local, 4);
	memcpy(&remote4, r->remote, 4);
	if (r->v6)
		return (in6_pcblookup(info, &remote, htons(r->remote_port), &local, htons(r->local_port), flags, NULL));
	return (in_pcblookup(info, remote4, htons(r->remote_port), local4, htons(r->local_port), flags, NULL));
}

/* What the mover's side does at the commit of a move. */
static int
kick(struct request *r)
{
	struct inpcb *inp = find(r, INPLOOKUP_WLOCKPCB);
	struct tcpcb *tp;

	if (inp == NULL)
		return (ENOENT);
	tp = intotcpcb(inp);
	r->pending = tp->t_rxtshift;
	r->ticks = tp->t_state;
	strlcpy(r->name, tp->t_fb->tfb_tcp_block_name, sizeof(r->name));
	if (strcmp(r->name, "freebsd") == 0 && tp->t_rxtshift < TCP_MAXRXTSHIFT) {
		if (tcp_timer_active(tp, TT_REXMT))
			tcp_timer_activate(tp, TT_REXMT, 1);
		else if (tcp_timer_active(tp, TT_PERSIST))
			tcp_timer_activate(tp, TT_PERSIST, 1);
	}
	INP_WUNLOCK(inp);
	return (0);
}

static int
look(struct request *r)
{
	struct inpcb *inp = find(r, r->flags);

	if (inp == NULL)
		return (ENOENT);
	r->runs = inp->inp_gencnt;
	r->local_port = ntohs(inp->inp_lport);
	r->remote_port = ntohs(inp->inp_fport);
	r->v6 = (inp->inp_vflag & INP_IPV6) != 0;
	if (r->v6) {
		memcpy(r->local, &inp->in6p_laddr, 16);
		memcpy(r->remote, &inp->in6p_faddr, 16);
	} else {
		memcpy(r->local, &inp->inp_laddr, 4);
		memcpy(r->remote, &inp->inp_faddr, 4);
	}
	if ((r->flags & INPLOOKUP_WLOCKPCB) != 0)
		INP_WUNLOCK(inp);
	else
		INP_RUNLOCK(inp);
	return (0);
}

static void
release(struct mbufq *from, int out)
{
	struct epoch_tracker et;
	struct mbuf *m;
	int v6;

	NET_EPOCH_ENTER(et);
	for (;;) {
		mtx_lock(&lock);
		m = mbufq_dequeue(from);
		mtx_unlock(&lock);
		if (m == NULL)
			break;
		v6 = mtod(m, struct ip *)->ip_v == 6;
		m->m_flags |= M_PROTO11;
		if (out && v6)
			(void)ip6_output(m, NULL, NULL, 0, NULL, NULL, NULL);
		else if (out)
			(void)ip_output(m, NULL, NULL, IP_RAWOUTPUT, NULL, NULL);
		else if (m_rcvif_restore(m) == NULL)
			m_freem(m);
		else
			(void)netisr_queue(v6 ? NETISR_IPV6 : NETISR_IP, m);
	}
	NET_EPOCH_EXIT(et);
}

static int
route(struct request *r)
{
	struct epoch_tracker et;
	struct nhop_object *nh;
	struct in6_addr remote;
	struct in_addr remote4;

	memcpy(&remote, r->remote, 16);
	memcpy(&remote4, r->remote, 4);
	NET_EPOCH_ENTER(et);
	if (r->what == LOCAL) {
		r->result = r->v6 ? in6_localip(&remote) : in_localip(remote4);
	} else {
		nh = r->v6 ? fib6_lookup(RT_DEFAULT_FIB, &remote, 0, NHR_NONE, 0) :
		    fib4_lookup(RT_DEFAULT_FIB, remote4, 0, NHR_NONE, 0);
		r->result = nh == NULL ? 0 : nh->nh_mtu;
		if (nh != NULL)
			strlcpy(r->name, if_name(nh->nh_ifp), sizeof(r->name));
		r->pending = nh != NULL && nh->nh_ifp == V_loif;
	}
	NET_EPOCH_EXIT(et);
	return (0);
}

static int
control(struct cdev *dev, u_long command, caddr_t data, int fflag, struct thread *td)
{
	struct request *r = (struct request *)data;
	struct mbuf *m;
	u_int pending = 0;
	int error = 0;

	(void)dev, (void)fflag;
	if (command != REQUEST)
		return (ENOTTY);
	CURVNET_SET(TD_TO_VNET(td));
	switch (r->what) {
	case ENQUEUE:
		r->result = taskqueue_enqueue(taskqueue_thread, &plain);
		break;
	case BURST:
		/* The handler waits for the gate, so that one run stands for several. */
		sx_xlock(&gate);
		for (int i = 0; i < r->argument; i++)
			(void)taskqueue_enqueue(taskqueue_thread, &plain);
		sx_xunlock(&gate);
		break;
	case ARM_PERIODIC:
		period = r->argument;
		/* FALLTHROUGH */
	case ARM:
		r->result = taskqueue_enqueue_timeout(taskqueue_thread, &timed, r->argument);
		break;
	case CANCEL:
		r->result = taskqueue_cancel_timeout(taskqueue_thread, &timed, &pending);
		r->pending = pending;
		break;
	case CANCEL_TASK:
		r->result = taskqueue_cancel(taskqueue_thread, &plain, &pending);
		r->pending = pending;
		break;
	case DRAIN:
		taskqueue_drain(taskqueue_thread, &plain);
		taskqueue_drain_timeout(taskqueue_thread, &timed);
		break;
	case REPORT:
		mtx_lock(&lock);
		r->runs = runs;
		r->pending = pendings;
		r->ticks = seen;
		mtx_unlock(&lock);
		break;
	case PEEK:
		r->ticks = ticks;
		r->runs = time_uptime;
		r->pending = hz;
		m = m_get2(r->argument, M_NOWAIT, MT_DATA, M_PKTHDR);
		r->result = M_TRAILINGSPACE(m);
		m_freem(m);
		break;
	case LOOKUP:
		error = look(r);
		break;
	case KICK:
		error = kick(r);
		break;
	case HOLD_IN:
		holding_in = r->argument;
		break;
	case HOLD_OUT:
		holding_out = r->argument;
		break;
	case RELEASE_IN:
		release(&held_in, 0);
		break;
	case RELEASE_OUT:
		release(&held_out, 1);
		break;
	case LOCAL:
	case MTU:
		error = route(r);
		break;
	case REASSEMBLE:
		reassembling = r->argument;
		break;
	default:
		error = EINVAL;
	}
	CURVNET_RESTORE();
	return (error);
}

static int
hold(struct mbufq *queue, struct mbuf **mp)
{
	int error;

	mtx_lock(&lock);
	error = mbufq_enqueue(queue, *mp);
	mtx_unlock(&lock);
	if (error != 0)
		m_freem(*mp);
	*mp = NULL;
	return (PFIL_CONSUMED);
}

/* Makes a whole packet of fragments. */
static pfil_return_t
whole(struct mbuf **mp)
{
	struct mbuf *m = *mp;
	struct ip6_hdr *ip6;
	int next, offset = sizeof(*ip6);

	if (mtod(m, struct ip *)->ip_v == 4) {
		if ((mtod(m, struct ip *)->ip_off & htons(IP_MF | IP_OFFMASK)) == 0)
			return (PFIL_PASS);
		*mp = ip_reass(m);
		return (*mp == NULL ? PFIL_CONSUMED : PFIL_PASS);
	}
	ip6 = mtod(m, struct ip6_hdr *);
	if (ip6->ip6_nxt != IPPROTO_FRAGMENT)
		return (PFIL_PASS);
	next = frag6_input(mp, &offset, IPPROTO_FRAGMENT);
	if (next == IPPROTO_DONE)
		return (PFIL_CONSUMED);
	if (offset != sizeof(*ip6) || mtod(*mp, struct ip6_hdr *)->ip6_nxt != next)
		panic("frag6_input says something else than the packet");
	return (PFIL_PASS);
}

static pfil_return_t
check(struct mbuf **mp, struct ifnet *ifp, int flags, void *ruleset, struct inpcb *inp)
{
	struct mbuf *m = *mp;

	(void)ifp, (void)ruleset, (void)inp;
	/* The second time around. */
	if ((m->m_flags & M_PROTO11) != 0)
		return (PFIL_PASS);
	if ((flags & PFIL_OUT) != 0)
		return (holding_out ? hold(&held_out, mp) : PFIL_PASS);
	if (reassembling && whole(mp) != PFIL_PASS)
		return (PFIL_CONSUMED);
	if (!holding_in)
		return (PFIL_PASS);
	m_rcvif_serialize(*mp);
	return (hold(&held_in, mp));
}

static void
link_one(pfil_hook_t *hook, int type, const char *head)
{
	struct pfil_hook_args ha = {
		.pa_version = PFIL_VERSION, .pa_flags = PFIL_IN | PFIL_OUT, .pa_type = type, .pa_mbuf_chk = check,
		.pa_modname = "services", .pa_rulname = head,
	};
	struct pfil_link_args la = {
		.pa_version = PFIL_VERSION, .pa_flags = PFIL_IN | PFIL_OUT | PFIL_HOOKPTR, .pa_headname = head,
	};

	*hook = pfil_add_hook(&ha);
	la.pa_hook = *hook;
	if (pfil_link(&la) != 0)
		panic("pfil_link");
}

static void
attach(const void *unused)
{

	(void)unused;
	link_one(&V_hook4, PFIL_TYPE_IP4, "inet");
	link_one(&V_hook6, PFIL_TYPE_IP6, "inet6");
}
VNET_SYSINIT(services_attach, SI_SUB_PROTO_FIREWALL, SI_ORDER_ANY, attach, NULL);

static void
detach(const void *unused)
{

	(void)unused;
	pfil_remove_hook(V_hook4);
	pfil_remove_hook(V_hook6);
}
VNET_SYSUNINIT(services_detach, SI_SUB_PROTO_FIREWALL, SI_ORDER_ANY, detach, NULL);

static struct cdevsw services_cdevsw = {
	.d_version = D_VERSION,
	.d_name = "services",
	.d_ioctl = control,
};

static int
event(module_t mod, int what, void *arg)
{
	struct make_dev_args args;

	(void)mod, (void)arg;
	switch (what) {
	case MOD_LOAD:
		sx_init(&gate, "services gate");
		mtx_init(&lock, "services lock", NULL, MTX_DEF);
		mbufq_init(&held_in, 1000);
		mbufq_init(&held_out, 1000);
		TASK_INIT(&plain, 0, handler, &plain);
		TIMEOUT_TASK_INIT(taskqueue_thread, &timed, 0, handler, &timed);
		make_dev_args_init(&args);
		args.mda_devsw = &services_cdevsw;
		args.mda_mode = 0600;
		return (make_dev_s(&args, &device, "services"));
	case MOD_UNLOAD:
		destroy_dev(device);
		period = 0;
		taskqueue_drain_timeout(taskqueue_thread, &timed);
		taskqueue_drain(taskqueue_thread, &plain);
		NET_EPOCH_WAIT();
		mbufq_drain(&held_in);
		mbufq_drain(&held_out);
		mtx_destroy(&lock);
		sx_destroy(&gate);
		return (0);
	case MOD_QUIESCE:
		return (0);
	default:
		return (EOPNOTSUPP);
	}
}

static moduledata_t services_data = { "services", event, NULL };
DECLARE_MODULE(services, services_data, SI_SUB_PROTO_FIREWALL, SI_ORDER_SECOND);
