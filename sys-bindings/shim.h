/*
 * What bindgen cannot express: macros and inline functions of the kernel, as
 * functions. Each is called by the safe wrapper of the same name in src/.
 */
#ifndef MOBCONN_SHIM_H
#define MOBCONN_SHIM_H

struct mbuf;
struct epoch_tracker;
struct knote;
struct thread;
struct vnet;

enum {
	/* Data bytes of an mbuf with a packet header. */
	mobconn_mhlen = MHLEN,
	/* Where the packet header and the hardware's sum lie in an mbuf. */
	mobconn_pkthdr = offsetof(struct mbuf, m_pkthdr),
	mobconn_csum_data = offsetof(struct mbuf, m_pkthdr.csum_data),
	/* A word that a packet keeps within a layer. */
	mobconn_ph_loc = offsetof(struct mbuf, m_pkthdr.PH_loc),
	/* What the kernel asks of any descriptor. */
	mobconn_fionbio = FIONBIO,
	mobconn_fioasync = FIOASYNC,
	mobconn_fionread = FIONREAD,
};

/* M_WRITABLE(9). */
int mobconn_m_writable(struct mbuf *);
/* counter_u64_add(9). */
void mobconn_counter_u64_add(uint64_t *, int64_t);
/* NET_EPOCH_WAIT(), see epoch(9). */
void mobconn_net_epoch_wait(void);
/* log(9) of one string; the name log itself is a function of Rust's runtime. */
void mobconn_log(int level, const char *line);
/* SYSCTL_STATIC_CHILDREN(_net_inet). */
struct sysctl_oid_list *mobconn_sysctl_net_inet(void);
/* TD_TO_VNET(). */
struct vnet *mobconn_td_to_vnet(struct thread *);
/* curthread. */
struct thread *mobconn_curthread(void);
/* curvnet, see vnet(9). */
struct vnet *mobconn_curvnet(void);
/* Makes another vnet the calling thread's; returns the one before. */
struct vnet *mobconn_curvnet_set(struct vnet *);
/* NET_EPOCH_ENTER() and NET_EPOCH_EXIT(), see epoch(9). */
void mobconn_net_epoch_enter(struct epoch_tracker *);
void mobconn_net_epoch_exit(struct epoch_tracker *);
/* TASK_INIT() and TIMEOUT_TASK_INIT() on the thread queue, see taskqueue(9). */
void mobconn_task_init(struct task *, task_fn_t *, void *);
void mobconn_timeout_task_init(struct timeout_task *, task_fn_t *, void *);

/* microuptime(9), as one number. */
uint64_t mobconn_microuptime(void);

/*
 * Where threads wait for events of one open descriptor: sleeping, in select(2)
 * and poll(2), by kqueue(2). ready says how many bytes there are to read; it is
 * called with the lock held.
 */
struct mobconn_bell {
	struct mtx lock;
	LIST_ENTRY(mobconn_bell) all;
	uintptr_t group;
	struct selinfo waiters;
	int64_t (*ready)(void *);
	void *context;
	int closing;
};
void mobconn_bell_init(struct mobconn_bell *, uintptr_t group, int64_t (*)(void *), void *);
/* Nobody waits any more, nor will. */
void mobconn_bell_destroy(struct mobconn_bell *);
/* Wakes those who wait at a bell of the group and have something to read. */
void mobconn_bells_ring(uintptr_t group);
/* Sends all sleepers at any bell home with ENXIO, now and later. */
void mobconn_bells_close(void);
/* Sleeps until there is something to read, or a signal comes. */
int mobconn_bell_wait(struct mobconn_bell *);
int mobconn_bell_poll(struct mobconn_bell *, int, struct thread *);
int mobconn_bell_kqfilter(struct mobconn_bell *, struct knote *);

/* The uio(9) that a device's read function gets. */
size_t mobconn_uio_resid(const struct uio *);

/* A connection's stack side; ports in network order. */
struct mobconn_side {
	uint8_t local[16];
	uint8_t remote[16];
	uint16_t local_port;
	uint16_t remote_port;
	uint8_t is_ipv6;
	uint8_t is_udp;
};
/* Whether curvnet has a connection with exactly these ends, TIME_WAIT included. */
int mobconn_is_connected(const struct mobconn_side *);
/* Lets the retransmission timer of a TCP connection of curvnet run out now, if it runs. */
int mobconn_tcp_resume(const struct mobconn_side *);
/*
 * Has a packet on its way out sent to a gateway, as ipfw(8) fwd does; a
 * link-local one has its scope embedded. 0, or ENOBUFS.
 */
int mobconn_next_hop(struct mbuf *, const uint8_t gateway[16], int is_ipv6);
/* The same for one that is to send no TSO packets any more. */
int mobconn_tcp_no_tso(const struct mobconn_side *);

/* The head of curvnet that IP packets pass, or null; pfil.h reads its hooks' numbers itself. */
const struct _pfil_head *mobconn_pfil_head(int is_ipv6);

/* Where a packet goes. */
struct mobconn_way {
	struct ifnet *interface;
	uint32_t mtu;
	/* Whether the interface cuts what TCP made for another one into segments. */
	int tso;
};
/* The way that ip_output or ip6_output would choose; 0: none. */
int mobconn_way(struct mbuf *, int is_ipv6, struct ifnet *, struct mobconn_way *);
/* A packet of these bytes, at most mobconn_mhlen, received by that interface. */
struct mbuf *mobconn_received(const void *, int length, struct ifnet *, int fib);

#endif
