/*
 * What bindgen cannot express: macros and inline functions of the kernel, as
 * functions. Each is called by the safe wrapper of the same name in src/.
 */
#ifndef MOBCONN_SHIM_H
#define MOBCONN_SHIM_H

struct mbuf;
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

#endif
