/*
 * Where the readers of a device wait, see shim.h. A bell must outlive nobody
 * who waits: destroy sends them home, and the device's functions are not
 * entered again by then.
 */
#include "headers.h"

static LIST_HEAD(, mobconn_bell) mobconn_bells = LIST_HEAD_INITIALIZER(mobconn_bells);
static struct mtx mobconn_bells_lock;
MTX_SYSINIT(mobconn_bells, &mobconn_bells_lock, "mobconn bells", MTX_DEF);

void
mobconn_bell_init(struct mobconn_bell *bell, uintptr_t group,
    int64_t (*ready)(void *), void *context)
{

	mtx_init(&bell->lock, "mobconn bell", NULL, MTX_DEF);
	knlist_init_mtx(&bell->waiters.si_note, &bell->lock);
	bell->ready = ready;
	bell->context = context;
	bell->group = group;
	mtx_lock(&mobconn_bells_lock);
	LIST_INSERT_HEAD(&mobconn_bells, bell, all);
	mtx_unlock(&mobconn_bells_lock);
}

/*
 * Deleted, not only cleared: a knote that stayed would lead to the functions
 * below when the module is gone.
 */
void
mobconn_bell_destroy(struct mobconn_bell *bell)
{

	mtx_lock(&mobconn_bells_lock);
	LIST_REMOVE(bell, all);
	mtx_unlock(&mobconn_bells_lock);
	knlist_delete(&bell->waiters.si_note, curthread, 0);
	seldrain(&bell->waiters);
	knlist_destroy(&bell->waiters.si_note);
	mtx_destroy(&bell->lock);
}

static void
mobconn_bell_ring(struct mobconn_bell *bell)
{

	mtx_lock(&bell->lock);
	if (bell->ready(bell->context) > 0) {
		wakeup(bell);
		selwakeup(&bell->waiters);
		KNOTE_LOCKED(&bell->waiters.si_note, 0);
	}
	mtx_unlock(&bell->lock);
}

void
mobconn_bells_ring(uintptr_t group)
{
	struct mobconn_bell *bell;

	mtx_lock(&mobconn_bells_lock);
	LIST_FOREACH(bell, &mobconn_bells, all) {
		if (bell->group == group)
			mobconn_bell_ring(bell);
	}
	mtx_unlock(&mobconn_bells_lock);
}

void
mobconn_bells_close(void)
{
	struct mobconn_bell *bell;

	mtx_lock(&mobconn_bells_lock);
	LIST_FOREACH(bell, &mobconn_bells, all) {
		mtx_lock(&bell->lock);
		bell->closing = 1;
		wakeup(bell);
		mtx_unlock(&bell->lock);
	}
	mtx_unlock(&mobconn_bells_lock);
}

int
mobconn_bell_wait(struct mobconn_bell *bell)
{
	int error = 0;

	mtx_lock(&bell->lock);
	while (error == 0 && !bell->closing &&
	    bell->ready(bell->context) == 0)
		error = msleep(bell, &bell->lock, PSOCK | PCATCH, "mobconn",
		    0);
	if (bell->closing)
		error = ENXIO;
	mtx_unlock(&bell->lock);
	return (error);
}

int
mobconn_bell_poll(struct mobconn_bell *bell, int events, struct thread *td)
{
	int wanted = events & (POLLIN | POLLRDNORM);

	if (wanted == 0)
		return (0);
	mtx_lock(&bell->lock);
	if (bell->ready(bell->context) == 0) {
		selrecord(td, &bell->waiters);
		wanted = 0;
	}
	mtx_unlock(&bell->lock);
	return (wanted);
}

static void
mobconn_filter_detach(struct knote *kn)
{
	struct mobconn_bell *bell = kn->kn_hook;

	knlist_remove(&bell->waiters.si_note, kn, 0);
}

static int
mobconn_filter_event(struct knote *kn, long hint __unused)
{
	struct mobconn_bell *bell = kn->kn_hook;

	kn->kn_data = bell->ready(bell->context);
	return (kn->kn_data > 0);
}

static struct filterops mobconn_filter = {
	.f_isfd = 1,
	.f_detach = mobconn_filter_detach,
	.f_event = mobconn_filter_event,
};

int
mobconn_bell_kqfilter(struct mobconn_bell *bell, struct knote *kn)
{

	if (kn->kn_filter != EVFILT_READ)
		return (EINVAL);
	kn->kn_fop = &mobconn_filter;
	kn->kn_hook = bell;
	knlist_add(&bell->waiters.si_note, kn, 0);
	return (0);
}
