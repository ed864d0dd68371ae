/*
 * What bindgen cannot express: macros and inline functions of the kernel, as
 * functions. Each is called by the safe wrapper of the same name in src/.
 */
#ifndef MOBCONN_SHIM_H
#define MOBCONN_SHIM_H

struct mbuf;
struct epoch_tracker;
struct thread;
struct vnet;

enum {
	/* Data bytes of an mbuf with a packet header. */
	mobconn_mhlen = MHLEN,
	/* Where the packet header and the hardware's sum lie in an mbuf. */
	mobconn_pkthdr = offsetof(struct mbuf, m_pkthdr),
	mobconn_csum_data = offsetof(struct mbuf, m_pkthdr.csum_data),
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

#endif
