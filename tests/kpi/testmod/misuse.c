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
#include <sys/malloc.h>
#include <sys/mbuf.h>
#include <sys/module.h>
#include <sys/mutex.h>
#include <sys/proc.h>
#include <sys/socket.h>
#include <sys/sx.h>
#include <sys/sysctl.h>
#include <net/if.h>
#include <net/pfil.h>
#include <net/vnet.h>

enum {
	CLEAN, SLEEP_MALLOC, SLEEP_SX, LEAK_MBUF, FREE_TWICE, USE_FREED, WRITE_FREED, PASS_NULL, CONSUMED_LEFT, EPOCH_OPEN,
	LOCK_HELD, MEMORY_LEFT, HOOK_LEFT, DEVICE_LEFT, BAD_LENGTH, MALLOC_BOUNDS, MALLOC_TWICE, RECURSION, SHARED_WRITE,
	VNET_MASTER, NULL_DEREF, LOCK_ORDER, COUNTER_LEFT, EPOCH_EXIT, COPYIN_LOCKED, ARGUMENT_BOUNDS, WRONG_TYPE, BAD_VERDICT,
	PANIC, CURVNET, LOCK_LEFT, LOCK_UNINIT, CLUSTER_BOUNDS, NO_PKTHDR, MALLOC_WRITE_FREED, RO_WRITE, CALLBACK_LATE, CRITICAL, DEEP_STACK,
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

	(void)dev, (void)command, (void)fflag, (void)td;
	error = 0;
	if (misuse == COPYIN_LOCKED) {
		mtx_lock(&lock);
		error = copyin((void *)0x1000, &byte, 1);
		mtx_unlock(&lock);
	}
	if (misuse == ARGUMENT_BOUNDS)
		data[IOCPARM_LEN(command)] = 1;
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
