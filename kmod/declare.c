/*
 * What the module declares to the kernel. The kernel's macros make statics in
 * linker sets, which only C can write down; everything that happens is in
 * Rust (src/).
 *
 * Order: the module event (SI_ORDER_SECOND) decides whether the kernel fits
 * before any vnet is set up (SI_ORDER_ANY), and is asked before any is torn
 * down.
 */
#include "headers.h"

#include "mobconn.h"

/* src/module.rs */
int	mobconn_modevent(module_t, int, void *);
/* src/vnet.rs */
void	mobconn_attach(const void *);
void	mobconn_detach(const void *);
/* src/cdev.rs, src/reader.rs */
d_ioctl_t	mobconn_ioctl;
d_open_t	mobconn_open;
d_read_t	mobconn_read;
d_poll_t	mobconn_poll;
d_kqfilter_t	mobconn_kqfilter;
d_purge_t	mobconn_purge;

/* For src/vnet.rs. */
void	*mobconn_instance_get(struct vnet *);
void	mobconn_instance_set(struct vnet *, void *);

MALLOC_DEFINE(M_MOBCONN, "mobconn", "mobconn flow table");

struct cdevsw mobconn_cdevsw = {
	.d_version = D_VERSION,
	.d_name = MOBCONN_DEVICE,
	.d_open = mobconn_open,
	.d_read = mobconn_read,
	.d_ioctl = mobconn_ioctl,
	.d_poll = mobconn_poll,
	.d_kqfilter = mobconn_kqfilter,
	.d_purge = mobconn_purge,
};

/* The state of a vnet, a struct of src/vnet.rs. */
VNET_DEFINE_STATIC(uintptr_t, mobconn_instance);

void *
mobconn_instance_get(struct vnet *vnet)
{

	return ((void *)atomic_load_acq_ptr(&VNET_VNET(vnet, mobconn_instance)));
}

void
mobconn_instance_set(struct vnet *vnet, void *instance)
{

	atomic_store_rel_ptr(&VNET_VNET(vnet, mobconn_instance), (uintptr_t)instance);
}

static moduledata_t mobconn_module = {
	"mobconn",
	mobconn_modevent,
	NULL,
};
DECLARE_MODULE(mobconn, mobconn_module, SI_SUB_PROTO_FIREWALL, SI_ORDER_SECOND);
MODULE_VERSION(mobconn, MOBCONN_ABI_VERSION);

VNET_SYSINIT(mobconn, SI_SUB_PROTO_FIREWALL, SI_ORDER_ANY, mobconn_attach, NULL);
VNET_SYSUNINIT(mobconn, SI_SUB_PROTO_FIREWALL, SI_ORDER_ANY, mobconn_detach, NULL);
