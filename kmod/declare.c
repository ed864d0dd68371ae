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
/* src/cdev.rs */
d_ioctl_t	mobconn_ioctl;
/* src/sysctl.rs */
int	mobconn_sysctl_flows(SYSCTL_HANDLER_ARGS);
int	mobconn_sysctl_stat(SYSCTL_HANDLER_ARGS);

/* For src/vnet.rs. */
void	*mobconn_instance_get(struct vnet *);
void	mobconn_instance_set(struct vnet *, void *);

MALLOC_DEFINE(M_MOBCONN, "mobconn", "mobconn flow table");

struct cdevsw mobconn_cdevsw = {
	.d_version = D_VERSION,
	.d_name = MOBCONN_DEVICE,
	.d_ioctl = mobconn_ioctl,
};

/* The state of a vnet, see src/vnet.rs. */
VNET_DEFINE_STATIC(void *, mobconn_instance);

void *
mobconn_instance_get(struct vnet *vnet)
{

	return (VNET_VNET(vnet, mobconn_instance));
}

void
mobconn_instance_set(struct vnet *vnet, void *instance)
{

	VNET_VNET(vnet, mobconn_instance) = instance;
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

/* Read and checked by src/module.rs. */
u_int mobconn_max_flows = 65536;
u_int mobconn_force_unload = 0;

SYSCTL_DECL(_net_inet);
static SYSCTL_NODE(_net_inet, OID_AUTO, mobconn, CTLFLAG_RW | CTLFLAG_MPSAFE, NULL,
    "Connections that survive a move between networks");
SYSCTL_UINT(_net_inet_mobconn, OID_AUTO, max_flows, CTLFLAG_RDTUN, &mobconn_max_flows, 0,
    "Most bindings that the table of a vnet takes");
SYSCTL_UINT(_net_inet_mobconn, OID_AUTO, force_unload, CTLFLAG_RW, &mobconn_force_unload, 0,
    "Let the module be unloaded although bindings live");
SYSCTL_PROC(_net_inet_mobconn, OID_AUTO, flows,
    CTLTYPE_U64 | CTLFLAG_RD | CTLFLAG_MPSAFE | CTLFLAG_VNET, NULL, 0,
    mobconn_sysctl_flows, "QU", "Bindings now");

static SYSCTL_NODE(_net_inet_mobconn, OID_AUTO, stats, CTLFLAG_RD | CTLFLAG_MPSAFE, NULL,
    "What happened to packets and bindings");
enum {
#define	MOBCONN_INDEX(name, description)	mobconn_index_##name,
	MOBCONN_COUNTERS(MOBCONN_INDEX)
};
#define	MOBCONN_STAT(name, description)						\
	SYSCTL_PROC(_net_inet_mobconn_stats, OID_AUTO, name,			\
	    CTLTYPE_U64 | CTLFLAG_RD | CTLFLAG_MPSAFE | CTLFLAG_VNET, NULL,	\
	    mobconn_index_##name, mobconn_sysctl_stat, "QU", description);
MOBCONN_COUNTERS(MOBCONN_STAT)
