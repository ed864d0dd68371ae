/*
 * A module that does one thing wrong, chosen by the tunable debug.misuse; 0 is
 * a module that does everything right. The test misuse expects the complaint.
 */
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/kernel.h>
#include <sys/conf.h>
#include <sys/counter.h>
#include <sys/epoch.h>
#include <sys/lock.h>
#include <sys/jail.h>
#include <sys/malloc.h>
#include <sys/mbuf.h>
#include <sys/module.h>
#include <sys/mutex.h>
#include <sys/proc.h>
#include <sys/socket.h>
#include <sys/sx.h>
#include <sys/sysctl.h>
#include <sys/rwlock.h>
#include <sys/taskqueue.h>
#include <net/if.h>
#include <net/if_var.h>
#include <net/netisr.h>
#include <net/pfil.h>
#include <net/route.h>
#include <net/route/nhop.h>
#include <net/vnet.h>
#include <netinet/in.h>
#include <netinet/in_fib.h>
#include <netinet/in_pcb.h>
#include <netinet/in_var.h>
#include <netinet/ip.h>
#include <netinet/ip_var.h>
#include <netinet/tcp.h>
#include <netinet/tcp_timer.h>
#include <netinet/tcp_var.h>
#include <netinet/udp.h>
#include <netinet/udp_var.h>
#include <netinet6/ip6_var.h>

enum {
	CLEAN, SLEEP_MALLOC, SLEEP_SX, LEAK_MBUF, FREE_TWICE, USE_FREED, WRITE_FREED, PASS_NULL, CONSUMED_LEFT, EPOCH_OPEN,
	LOCK_HELD, MEMORY_LEFT, HOOK_LEFT, DEVICE_LEFT, BAD_LENGTH, MALLOC_BOUNDS, MALLOC_TWICE, RECURSION, SHARED_WRITE,
	VNET_MASTER, NULL_DEREF, LOCK_ORDER, COUNTER_LEFT, EPOCH_EXIT, COPYIN_LOCKED, ARGUMENT_BOUNDS, WRONG_TYPE, BAD_VERDICT,
	PANIC, CURVNET, LOCK_LEFT, LOCK_UNINIT, CLUSTER_BOUNDS, NO_PKTHDR, MALLOC_WRITE_FREED, RO_WRITE, CALLBACK_LATE, CRITICAL, DEEP_STACK,
	DRAIN_EPOCH, DRAIN_ITSELF, TASK_LEFT, TIMEOUT_LEFT, TASK_FREED, TASK_AGAIN, TASK_RAW, TIMEOUT_RAW, TASK_VNET, TASK_LOCK,
	TASK_QUEUE, LOOKUP_HOOK, LOOKUP_INFO, LOOKUP_FLAGS, LOOKUP_LEFT, LOOKUP_TWICE, PCB_ORDER, TIMER_READ, TIMER_IDLE,
	TIMER_LAST, TIMER_UDP, QUEUE_BARE, QUEUE_PROTOCOL, SEND_BARE, REASS_WHOLE, FRAG6_OFFSET, ROUTE_BARE, LOCAL_BARE,
	RESTORE_BARE, UNLOCK_FREE,
};

static int misuse;
SYSCTL_INT(_debug, OID_AUTO, misuse, CTLFLAG_RDTUN, &misuse, 0, "what to do wrong");

static MALLOC_DEFINE(M_MISUSE, "misuse", "module that misbehaves");
static struct mtx lock, other;
static struct sx sleeping;
static struct cdev *device;
static counter_u64_t passed, spare;
static const int constant = 5;
VNET_DEFINE_STATIC(pfil_hook_t, hook4);
VNET_DEFINE_STATIC(pfil_hook_t, hook6);
#define	V_hook4	VNET(hook4)
#define	V_hook6	VNET(hook6)
VNET_DEFINE_STATIC(int, variable) = 17;

static void
nothing(epoch_context_t context)
{

	(void)context;
}

static struct task task, waiter;
static struct timeout_task timed;
static void *memory;
static struct vnet *home;

static void
wait(void *context, int pending)
{

	(void)context, (void)pending;
	sx_xlock(&sleeping);
	sx_xunlock(&sleeping);
}

static void
handler(void *context, int pending)
{

	(void)context, (void)pending;
	if (misuse == DRAIN_ITSELF)
		taskqueue_drain(taskqueue_thread, &task);
	if (misuse == TASK_VNET)
		curthread->td_vnet = home;
	if (misuse == TASK_LOCK)
		mtx_lock(&lock);
}

/* The connection that the test's program has, of TCP or UDP. */
static struct inpcb *
find(struct inpcbinfo *info, int lport, int flags)
{
	struct in_addr local = { htonl(0xc0000202) }, remote = { htonl(0xc0000201) };

	return (in_pcblookup(info, remote, htons(5000), local, htons(lport), flags, NULL));
}

static struct tcpcb *
locked(int lport)
{
	struct inpcb *inp = find(&V_tcbinfo, lport, INPLOOKUP_WLOCKPCB);

	if (inp == NULL)
		panic("the program has no connection");
	return (intotcpcb(inp));
}

/* What goes wrong outside a hook, with curvnet set. */
static void
services(void)
{
	struct inpcb *inp, *more;
	struct tcpcb *tp;
	struct task *own;
	struct mbuf *m;

	switch (misuse) {
	case DRAIN_ITSELF:
	case TASK_VNET:
	case TASK_LOCK:
		home = curvnet;
		(void)taskqueue_enqueue(taskqueue_thread, &task);
		taskqueue_drain(taskqueue_thread, &task);
		break;
	case TASK_QUEUE:
		(void)taskqueue_enqueue((struct taskqueue *)&task, &task);
		break;
	case TASK_RAW:
		own = malloc(sizeof(*own), M_MISUSE, M_WAITOK);
		(void)taskqueue_enqueue(taskqueue_thread, own);
		break;
	case TIMEOUT_RAW:
		(void)taskqueue_enqueue_timeout(taskqueue_thread, malloc(sizeof(timed), M_MISUSE, M_WAITOK | M_ZERO), 1);
		break;
	case TASK_FREED:
		(void)taskqueue_enqueue_timeout(taskqueue_thread, (struct timeout_task *)memory, 1000000);
		free(memory, M_MISUSE);
		break;
	case TASK_AGAIN:
		/* Waits behind one that waits for the lock. */
		sx_xlock(&sleeping);
		(void)taskqueue_enqueue(taskqueue_thread, &waiter);
		(void)taskqueue_enqueue(taskqueue_thread, &task);
		TASK_INIT(&task, 0, handler, NULL);
		(void)taskqueue_enqueue(taskqueue_thread, &task);
		sx_xunlock(&sleeping);
		break;
	case LOOKUP_INFO:
		(void)find((struct inpcbinfo *)&task, 80, INPLOOKUP_RLOCKPCB);
		break;
	case LOOKUP_FLAGS:
		(void)find(&V_tcbinfo, 80, 0);
		break;
	case LOOKUP_LEFT:
		(void)find(&V_tcbinfo, 80, INPLOOKUP_RLOCKPCB);
		break;
	case LOOKUP_TWICE:
		inp = find(&V_tcbinfo, 80, INPLOOKUP_RLOCKPCB);
		more = find(&V_udbinfo, 80, INPLOOKUP_RLOCKPCB);
		INP_RUNLOCK(more);
		INP_RUNLOCK(inp);
		break;
	case PCB_ORDER:
		/* The hook takes its lock under that of the sender's connection. */
		mtx_lock(&lock);
		inp = find(&V_udbinfo, 80, INPLOOKUP_RLOCKPCB);
		INP_RUNLOCK(inp);
		mtx_unlock(&lock);
		break;
	case TIMER_READ:
		inp = find(&V_tcbinfo, 80, INPLOOKUP_RLOCKPCB);
		(void)tcp_timer_active(intotcpcb(inp), TT_REXMT);
		break;
	case TIMER_IDLE:
		tp = locked(81);
		tcp_timer_activate(tp, TT_REXMT, 1);
		break;
	case TIMER_LAST:
		tp = locked(82);
		tcp_timer_activate(tp, TT_REXMT, 1);
		break;
	case TIMER_UDP:
		inp = find(&V_udbinfo, 80, INPLOOKUP_WLOCKPCB);
		tcp_timer_activate((struct tcpcb *)inp, TT_REXMT, 1);
		break;
	case QUEUE_BARE:
		m = m_gethdr(M_WAITOK, MT_DATA);
		m->m_len = m->m_pkthdr.len = 40;
		(void)netisr_queue(NETISR_IP, m);
		break;
	case QUEUE_PROTOCOL:
		(void)netisr_queue(NETISR_ARP, m_gethdr(M_WAITOK, MT_DATA));
		break;
	case SEND_BARE:
		m = m_gethdr(M_WAITOK, MT_DATA);
		m->m_len = m->m_pkthdr.len = 28;
		memset(m->m_data, 0, 28);
		mtod(m, struct ip *)->ip_v = 4;
		mtod(m, struct ip *)->ip_hl = 5;
		mtod(m, struct ip *)->ip_len = htons(28);
		(void)ip_output(m, NULL, NULL, IP_RAWOUTPUT, NULL, NULL);
		break;
	case ROUTE_BARE:
		(void)fib4_lookup(RT_DEFAULT_FIB, (struct in_addr){ htonl(0xc0000201) }, 0, NHR_NONE, 0);
		break;
	case LOCAL_BARE:
		(void)in_localip((struct in_addr){ htonl(0xc0000201) });
		break;
	case RESTORE_BARE:
		(void)m_rcvif_restore(m_gethdr(M_WAITOK, MT_DATA));
		break;
	case UNLOCK_FREE:
		mtx_unlock(&lock);
		break;
	}
}

static void __noinline
deep(struct mbuf *m)
{
	volatile char array[7000];

	array[0] = 1;
	m_copydata(m, 0, 1, __DEVOLATILE(char *, array));
}

static pfil_return_t
check(struct mbuf **mp, struct ifnet *ifp, int flags, void *ruleset, struct inpcb *inp)
{
	static struct epoch_tracker tracker;
	static struct epoch_context context;
	struct mbuf *m = *mp;
	void *p;
	int offset;

	(void)ifp, (void)ruleset, (void)inp;
	counter_u64_add(passed, 1);
	switch (misuse) {
	case SLEEP_MALLOC:
		free(malloc(16, M_MISUSE, M_WAITOK), M_MISUSE);
		break;
	case SLEEP_SX:
		sx_xlock(&sleeping);
		sx_xunlock(&sleeping);
		break;
	case LEAK_MBUF:
		*mp = NULL;
		return (PFIL_CONSUMED);
	case FREE_TWICE:
		m_freem(m);
		m_freem(m);
		*mp = NULL;
		return (PFIL_DROPPED);
	case USE_FREED:
		m_freem(m);
		*mp = m_pullup(m, 30);
		break;
	case WRITE_FREED:
		m_freem(m);
		m->m_len = 5;
		*mp = NULL;
		return (PFIL_DROPPED);
	case PASS_NULL:
		m_freem(m);
		*mp = NULL;
		return (PFIL_PASS);
	case CONSUMED_LEFT:
		return (PFIL_CONSUMED);
	case EPOCH_OPEN:
		NET_EPOCH_ENTER(tracker);
		break;
	case EPOCH_EXIT:
		NET_EPOCH_EXIT(tracker);
		break;
	case LOCK_HELD:
		mtx_lock(&lock);
		break;
	case RECURSION:
		mtx_lock(&lock);
		mtx_lock(&lock);
		break;
	case LOCK_ORDER:
		mtx_lock(&lock);
		mtx_lock(&other);
		mtx_unlock(&other);
		mtx_unlock(&lock);
		mtx_lock(&other);
		mtx_lock(&lock);
		mtx_unlock(&lock);
		mtx_unlock(&other);
		break;
	case BAD_LENGTH:
		m->m_pkthdr.len++;
		break;
	case NO_PKTHDR:
		m->m_flags &= ~M_PKTHDR;
		break;
	case MALLOC_BOUNDS:
		p = malloc(24, M_MISUSE, M_NOWAIT);
		((char *)p)[24] = 1;
		free(p, M_MISUSE);
		break;
	case MALLOC_TWICE:
		p = malloc(24, M_MISUSE, M_NOWAIT);
		free(p, M_MISUSE);
		free(p, M_MISUSE);
		break;
	case MALLOC_WRITE_FREED:
		p = malloc(24, M_MISUSE, M_NOWAIT);
		free(p, M_MISUSE);
		*(volatile char *)p = 1;
		break;
	case WRONG_TYPE:
		free(malloc(24, M_MISUSE, M_NOWAIT), M_TEMP);
		break;
	case SHARED_WRITE:
		if (!M_WRITABLE(m) && (m->m_flags & M_EXT) != 0)
			*mtod(m, char *) ^= 1;
		break;
	case CLUSTER_BOUNDS:
		if ((m->m_flags & M_EXT) != 0)
			m->m_ext.ext_buf[m->m_ext.ext_size] = 1;
		break;
	case VNET_MASTER:
		return (VNET_NAME(variable) == 17 ? PFIL_PASS : PFIL_DROPPED);
	case NULL_DEREF:
		return (*(volatile int *)(uintptr_t)ruleset);
	case RO_WRITE:
		*(volatile int *)(uintptr_t)&constant = 6;
		break;
	case BAD_VERDICT:
		return (77);
	case PANIC:
		panic("%s of %d", "testing", flags & PFIL_IN ? 1 : 2);
	case CURVNET:
		curthread->td_vnet = NULL;
		break;
	case LOCK_UNINIT:
		mtx_lock((struct mtx *)&spare);
		break;
	case CALLBACK_LATE:
		NET_EPOCH_CALL(nothing, &context);
		break;
	case DEEP_STACK:
		deep(m);
		break;
	case CRITICAL:
		curthread->td_critnest++;
		break;
	case DRAIN_EPOCH:
		taskqueue_drain(taskqueue_thread, &task);
		break;
	case LOOKUP_HOOK:
		if ((flags & PFIL_OUT) != 0 && find(&V_tcbinfo, 80, INPLOOKUP_RLOCKPCB) != NULL)
			panic("found");
		break;
	case PCB_ORDER:
		mtx_lock(&lock);
		mtx_unlock(&lock);
		break;
	case REASS_WHOLE:
		if (mtod(m, struct ip *)->ip_v == 4)
			*mp = ip_reass(m);
		break;
	case FRAG6_OFFSET:
		offset = 44;
		if (mtod(m, struct ip *)->ip_v == 6)
			(void)frag6_input(mp, &offset, IPPROTO_FRAGMENT);
		break;
	default:
		if (VNET(variable) != 17)
			panic("a variable of the VNET has lost its value");
	}
	return (PFIL_PASS);
}

static void
link_one(pfil_hook_t *hook, int type, const char *head)
{
	struct pfil_hook_args ha = {
		.pa_version = PFIL_VERSION, .pa_flags = PFIL_IN | PFIL_OUT, .pa_type = type, .pa_mbuf_chk = check,
		.pa_modname = "misuse", .pa_rulname = head,
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
VNET_SYSINIT(misuse_attach, SI_SUB_PROTO_FIREWALL, SI_ORDER_ANY, attach, NULL);

static void
detach(const void *unused)
{

	(void)unused;
	if (misuse == HOOK_LEFT)
		return;
	pfil_remove_hook(V_hook4);
	pfil_remove_hook(V_hook6);
}
VNET_SYSUNINIT(misuse_detach, SI_SUB_PROTO_FIREWALL, SI_ORDER_ANY, detach, NULL);

static int
control(struct cdev *dev, u_long command, caddr_t data, int fflag, struct thread *td)
{
	char byte;
	int error;

	(void)dev, (void)command, (void)fflag;
	error = 0;
	if (misuse == COPYIN_LOCKED) {
		mtx_lock(&lock);
		error = copyin((void *)0x1000, &byte, 1);
		mtx_unlock(&lock);
	}
	if (misuse == ARGUMENT_BOUNDS)
		data[IOCPARM_LEN(command)] = 1;
	CURVNET_SET(TD_TO_VNET(td));
	services();
	CURVNET_RESTORE();
	return (error);
}

static struct cdevsw misuse_cdevsw = {
	.d_version = D_VERSION,
	.d_name = "misuse",
	.d_ioctl = control,
};

static int
event(module_t mod, int what, void *arg)
{
	struct make_dev_args args;

	(void)mod, (void)arg;
	switch (what) {
	case MOD_LOAD:
		mtx_init(&lock, "misuse lock", NULL, MTX_DEF);
		mtx_init(&other, "misuse other lock", NULL, MTX_DEF);
		sx_init(&sleeping, "misuse sleeping lock");
		TASK_INIT(&task, 0, handler, NULL);
		TASK_INIT(&waiter, 0, wait, NULL);
		TIMEOUT_TASK_INIT(taskqueue_thread, &timed, 0, handler, NULL);
		if (misuse == TASK_FREED) {
			memory = malloc(sizeof(struct timeout_task), M_MISUSE, M_WAITOK);
			TIMEOUT_TASK_INIT(taskqueue_thread, (struct timeout_task *)memory, 0, handler, NULL);
		}
		passed = counter_u64_alloc(M_WAITOK);
		make_dev_args_init(&args);
		args.mda_devsw = &misuse_cdevsw;
		args.mda_mode = 0600;
		return (make_dev_s(&args, &device, "misuse%d", 0));
	case MOD_UNLOAD:
		if (misuse != DEVICE_LEFT)
			destroy_dev(device);
		if (misuse == MEMORY_LEFT && malloc(100, M_MISUSE, M_NOWAIT) == NULL)
			panic("no memory");
		if (misuse != COUNTER_LEFT)
			counter_u64_free(passed);
		if (misuse != LOCK_LEFT)
			mtx_destroy(&lock);
		mtx_destroy(&other);
		if (misuse == TASK_LEFT) {
			/* Runs, and waits for somebody who never comes. */
			sx_xlock(&sleeping);
			(void)taskqueue_enqueue(taskqueue_thread, &waiter);
			(void)taskqueue_enqueue(taskqueue_thread, &task);
			return (0);
		}
		if (misuse == TIMEOUT_LEFT)
			(void)taskqueue_enqueue_timeout(taskqueue_thread, &timed, 1000000);
		sx_destroy(&sleeping);
		NET_EPOCH_DRAIN_CALLBACKS();
		return (0);
	case MOD_QUIESCE:
		return (0);
	default:
		return (EOPNOTSUPP);
	}
}

static moduledata_t misuse_data = { "misuse", event, NULL };
DECLARE_MODULE(misuse, misuse_data, SI_SUB_PROTO_FIREWALL, SI_ORDER_SECOND);
