/*
 * Sizes, offsets and constants as the C compiler has them, for the test layout:
 * one constant each, named after what src/layout.rs calls it.
 */
#include <sys/param.h>
#include <sys/systm.h>
#include <sys/kernel.h>
#include <sys/conf.h>
#include <sys/event.h>
#include <sys/fcntl.h>
#include <sys/jail.h>
#include <sys/lock.h>
#include <sys/malloc.h>
#include <sys/mbuf.h>
#include <sys/module.h>
#include <sys/mutex.h>
#include <sys/poll.h>
#include <sys/pcpu.h>
#include <sys/proc.h>
#include <sys/rmlock.h>
#include <sys/rwlock.h>
#include <sys/sdt.h>
#include <sys/socket.h>
#include <sys/sx.h>
#include <sys/sysctl.h>
#include <sys/taskqueue.h>
#include <sys/ucred.h>
#include <sys/uio.h>
#include <net/if.h>
#include <net/if_var.h>
#include <net/if_private.h>
#include <net/pfil.h>
#include <net/netisr.h>
#include <net/route.h>
#include <net/route/nhop.h>
#include <net/vnet.h>
#include <netinet/in.h>
#include <netinet/in_pcb.h>
#include <netinet/ip6.h>
#include <netinet/ip_var.h>
#include <netinet/tcp.h>
#include <netinet/tcp_fsm.h>
#include <netinet/tcp_timer.h>
#include <netinet/tcp_var.h>
#include <netinet6/ip6_var.h>

#define	SIZE(r, c)		const unsigned long size_##r = sizeof(c);
#define	FIELD(r, f, c, m)	const unsigned long field_##r##_##f = __builtin_offsetof(c, m);
#define	AFTER(r, f, c, m)	const unsigned long field_##r##_##f = __builtin_offsetof(c, m) + sizeof(((c *)0)->m);
#define	VALUE(n)		const unsigned long value_##n = (unsigned int)(n);

SIZE(Td, struct thread)
FIELD(Td, proc_, struct thread, td_proc) FIELD(Td, tid, struct thread, td_tid)
FIELD(Td, owepreempt, struct thread, td_owepreempt) FIELD(Td, ucred, struct thread, td_ucred)
FIELD(Td, fpop, struct thread, td_fpop) FIELD(Td, critnest, struct thread, td_critnest)
FIELD(Td, vnet, struct thread, td_vnet)
SIZE(Ucred, struct ucred)
FIELD(Ucred, cr_ref, struct ucred, cr_ref) FIELD(Ucred, uid, struct ucred, cr_uid)
FIELD(Ucred, ruid, struct ucred, cr_ruid) FIELD(Ucred, prison, struct ucred, cr_prison)
SIZE(Prison, struct prison)
FIELD(Prison, id, struct prison, pr_id) FIELD(Prison, vnet, struct prison, pr_vnet)
SIZE(Pcpu, struct pcpu)
FIELD(Pcpu, curthread, struct pcpu, pc_curthread) FIELD(Pcpu, cpuid, struct pcpu, pc_cpuid)
FIELD(Pcpu, prvspace, struct pcpu, pc_prvspace)
SIZE(VnetC, struct vnet)
FIELD(VnetC, magic, struct vnet, vnet_magic_n) FIELD(VnetC, data_mem, struct vnet, vnet_data_mem)
FIELD(VnetC, data_base, struct vnet, vnet_data_base) FIELD(VnetC, shutdown, struct vnet, vnet_shutdown)
SIZE(VnetSysinit, struct vnet_sysinit)
FIELD(VnetSysinit, subsystem, struct vnet_sysinit, subsystem) FIELD(VnetSysinit, order, struct vnet_sysinit, order)
FIELD(VnetSysinit, func, struct vnet_sysinit, func) FIELD(VnetSysinit, arg, struct vnet_sysinit, arg)
SIZE(Sysinit, struct sysinit)
FIELD(Sysinit, subsystem, struct sysinit, subsystem) FIELD(Sysinit, order, struct sysinit, order)
FIELD(Sysinit, func, struct sysinit, func) FIELD(Sysinit, udata, struct sysinit, udata)
SIZE(ModMetadata, struct mod_metadata)
FIELD(ModMetadata, md_version, struct mod_metadata, md_version) FIELD(ModMetadata, md_type, struct mod_metadata, md_type)
FIELD(ModMetadata, md_data, struct mod_metadata, md_data) FIELD(ModMetadata, md_cval, struct mod_metadata, md_cval)
SIZE(Moduledata, moduledata_t)
FIELD(Moduledata, name, moduledata_t, name) FIELD(Moduledata, evhand, moduledata_t, evhand)
FIELD(Moduledata, priv_, moduledata_t, priv)
SIZE(ModDepend, struct mod_depend)
FIELD(ModDepend, md_ver_minimum, struct mod_depend, md_ver_minimum)
FIELD(ModDepend, md_ver_preferred, struct mod_depend, md_ver_preferred)
FIELD(ModDepend, md_ver_maximum, struct mod_depend, md_ver_maximum)
SIZE(MallocType, struct malloc_type)
FIELD(MallocType, version, struct malloc_type, ks_version) FIELD(MallocType, shortdesc, struct malloc_type, ks_shortdesc)
SIZE(LockObject, struct lock_object)
FIELD(LockObject, name, struct lock_object, lo_name) FIELD(LockObject, flags, struct lock_object, lo_flags)
FIELD(LockObject, data, struct lock_object, lo_data) FIELD(LockObject, witness, struct lock_object, lo_witness)
SIZE(PfilHookArgs, struct pfil_hook_args)
FIELD(PfilHookArgs, version, struct pfil_hook_args, pa_version) FIELD(PfilHookArgs, flags, struct pfil_hook_args, pa_flags)
FIELD(PfilHookArgs, type_, struct pfil_hook_args, pa_type)
FIELD(PfilHookArgs, mbuf_chk, struct pfil_hook_args, pa_mbuf_chk)
FIELD(PfilHookArgs, mem_chk, struct pfil_hook_args, pa_mem_chk)
FIELD(PfilHookArgs, ruleset, struct pfil_hook_args, pa_ruleset)
FIELD(PfilHookArgs, modname, struct pfil_hook_args, pa_modname)
FIELD(PfilHookArgs, rulname, struct pfil_hook_args, pa_rulname)
SIZE(PfilLinkArgs, struct pfil_link_args)
FIELD(PfilLinkArgs, version, struct pfil_link_args, pa_version) FIELD(PfilLinkArgs, flags, struct pfil_link_args, pa_flags)
FIELD(PfilLinkArgs, head, struct pfil_link_args, pa_head) FIELD(PfilLinkArgs, hook, struct pfil_link_args, pa_hook)
FIELD(PfilLinkArgs, rulname, struct pfil_link_args, pa_rulname)
SIZE(Ifnet, struct ifnet)
FIELD(Ifnet, index, struct ifnet, if_index) FIELD(Ifnet, idxgen, struct ifnet, if_idxgen)
FIELD(Ifnet, flags, struct ifnet, if_flags)
FIELD(Ifnet, mtu, struct ifnet, if_mtu) FIELD(Ifnet, hwassist, struct ifnet, if_hwassist)
FIELD(Ifnet, tsomax, struct ifnet, if_hw_tsomax) FIELD(Ifnet, tsomaxsegcount, struct ifnet, if_hw_tsomaxsegcount)
FIELD(Ifnet, tsomaxsegsize, struct ifnet, if_hw_tsomaxsegsize)
FIELD(Ifnet, vnet, struct ifnet, if_vnet) FIELD(Ifnet, xname, struct ifnet, if_xname)
SIZE(Cdev, struct cdev)
FIELD(Cdev, flags, struct cdev, si_flags) FIELD(Cdev, uid, struct cdev, si_uid) FIELD(Cdev, mode, struct cdev, si_mode)
FIELD(Cdev, drv1, struct cdev, si_drv1) FIELD(Cdev, drv2, struct cdev, si_drv2) FIELD(Cdev, devsw, struct cdev, si_devsw)
FIELD(Cdev, usecount, struct cdev, si_usecount) FIELD(Cdev, threadcount, struct cdev, si_threadcount)
FIELD(Cdev, name, struct cdev, si_name)
SIZE(Cdevsw, struct cdevsw)
FIELD(Cdevsw, version, struct cdevsw, d_version) FIELD(Cdevsw, flags, struct cdevsw, d_flags)
FIELD(Cdevsw, name, struct cdevsw, d_name) FIELD(Cdevsw, open, struct cdevsw, d_open)
FIELD(Cdevsw, close, struct cdevsw, d_close) FIELD(Cdevsw, read, struct cdevsw, d_read)
FIELD(Cdevsw, write, struct cdevsw, d_write) FIELD(Cdevsw, ioctl, struct cdevsw, d_ioctl)
FIELD(Cdevsw, poll, struct cdevsw, d_poll) FIELD(Cdevsw, kqfilter, struct cdevsw, d_kqfilter)
FIELD(Cdevsw, purge, struct cdevsw, d_purge)
SIZE(SdtProbe, struct sdt_probe)
FIELD(SdtProbe, version, struct sdt_probe, version) FIELD(SdtProbe, name, struct sdt_probe, name)
FIELD(SdtProbe, id, struct sdt_probe, id)
SIZE(SdtArgtype, struct sdt_argtype)
FIELD(SdtArgtype, ndx, struct sdt_argtype, ndx) FIELD(SdtArgtype, type_, struct sdt_argtype, type)
FIELD(SdtArgtype, probe, struct sdt_argtype, probe)
SIZE(Uio, struct uio)
FIELD(Uio, iov, struct uio, uio_iov) FIELD(Uio, iovcnt, struct uio, uio_iovcnt)
FIELD(Uio, offset, struct uio, uio_offset) FIELD(Uio, resid, struct uio, uio_resid)
FIELD(Uio, segflg, struct uio, uio_segflg) FIELD(Uio, rw, struct uio, uio_rw) FIELD(Uio, td, struct uio, uio_td)
SIZE(Iovec, struct iovec)
FIELD(Iovec, base, struct iovec, iov_base) FIELD(Iovec, len, struct iovec, iov_len)
SIZE(Knote, struct knote)
FIELD(Knote, knlist, struct knote, kn_knlist) FIELD(Knote, kq, struct knote, kn_kq)
FIELD(Knote, filter, struct knote, kn_kevent.filter) FIELD(Knote, flags, struct knote, kn_kevent.flags)
FIELD(Knote, data, struct knote, kn_kevent.data) FIELD(Knote, hook, struct knote, kn_hook)
FIELD(Knote, status, struct knote, kn_status) FIELD(Knote, fop, struct knote, kn_fop)
SIZE(Filterops, struct filterops)
FIELD(Filterops, isfd, struct filterops, f_isfd) FIELD(Filterops, detach, struct filterops, f_detach)
FIELD(Filterops, event, struct filterops, f_event)
SIZE(MakeDevArgs, struct make_dev_args)
FIELD(MakeDevArgs, size, struct make_dev_args, mda_size) FIELD(MakeDevArgs, flags, struct make_dev_args, mda_flags)
FIELD(MakeDevArgs, devsw, struct make_dev_args, mda_devsw) FIELD(MakeDevArgs, cr, struct make_dev_args, mda_cr)
FIELD(MakeDevArgs, uid, struct make_dev_args, mda_uid) FIELD(MakeDevArgs, gid, struct make_dev_args, mda_gid)
FIELD(MakeDevArgs, mode, struct make_dev_args, mda_mode) FIELD(MakeDevArgs, unit, struct make_dev_args, mda_unit)
FIELD(MakeDevArgs, drv1, struct make_dev_args, mda_si_drv1) FIELD(MakeDevArgs, drv2, struct make_dev_args, mda_si_drv2)
SIZE(Oid, struct sysctl_oid)
FIELD(Oid, parent, struct sysctl_oid, oid_parent) FIELD(Oid, number, struct sysctl_oid, oid_number)
FIELD(Oid, kind, struct sysctl_oid, oid_kind) FIELD(Oid, arg1, struct sysctl_oid, oid_arg1)
FIELD(Oid, arg2, struct sysctl_oid, oid_arg2) FIELD(Oid, name, struct sysctl_oid, oid_name)
FIELD(Oid, handler, struct sysctl_oid, oid_handler) FIELD(Oid, fmt, struct sysctl_oid, oid_fmt)
FIELD(Oid, descr, struct sysctl_oid, oid_descr)
SIZE(Req, struct sysctl_req)
FIELD(Req, td, struct sysctl_req, td) FIELD(Req, lock, struct sysctl_req, lock)
FIELD(Req, oldptr, struct sysctl_req, oldptr) FIELD(Req, oldlen, struct sysctl_req, oldlen)
FIELD(Req, oldidx, struct sysctl_req, oldidx) FIELD(Req, oldfunc, struct sysctl_req, oldfunc)
FIELD(Req, newptr, struct sysctl_req, newptr) FIELD(Req, newlen, struct sysctl_req, newlen)
FIELD(Req, newidx, struct sysctl_req, newidx) FIELD(Req, newfunc, struct sysctl_req, newfunc)
FIELD(Req, validlen, struct sysctl_req, validlen) FIELD(Req, flags, struct sysctl_req, flags)
SIZE(MbufC, struct mbuf)
FIELD(MbufC, next, struct mbuf, m_next) FIELD(MbufC, nextpkt, struct mbuf, m_nextpkt)
FIELD(MbufC, data, struct mbuf, m_data) FIELD(MbufC, len, struct mbuf, m_len) AFTER(MbufC, type_flags, struct mbuf, m_len)
FIELD(MbufC, rcvif, struct mbuf, m_pkthdr.rcvif) FIELD(MbufC, leaf_rcvif, struct mbuf, m_pkthdr.leaf_rcvif)
FIELD(MbufC, tags, struct mbuf, m_pkthdr.tags) FIELD(MbufC, pkt_len, struct mbuf, m_pkthdr.len)
FIELD(MbufC, flowid, struct mbuf, m_pkthdr.flowid) FIELD(MbufC, csum_flags, struct mbuf, m_pkthdr.csum_flags)
FIELD(MbufC, fibnum, struct mbuf, m_pkthdr.fibnum) FIELD(MbufC, rsstype, struct mbuf, m_pkthdr.rsstype)
FIELD(MbufC, tso_segsz, struct mbuf, m_pkthdr.tso_segsz) FIELD(MbufC, csum_data, struct mbuf, m_pkthdr.csum_data)
FIELD(MbufC, loc, struct mbuf, m_pkthdr.PH_loc)
FIELD(MbufC, ext_count, struct mbuf, m_ext.ext_count) FIELD(MbufC, ext_cnt, struct mbuf, m_ext.ext_cnt)
FIELD(MbufC, ext_size, struct mbuf, m_ext.ext_size) AFTER(MbufC, ext_type_flags, struct mbuf, m_ext.ext_size)
FIELD(MbufC, ext_buf, struct mbuf, m_ext.ext_buf) FIELD(MbufC, ext_arg2, struct mbuf, m_ext.ext_arg2)
FIELD(MbufC, ext_free, struct mbuf, m_ext.ext_free) FIELD(MbufC, ext_arg1, struct mbuf, m_ext.ext_arg1)
FIELD(MbufC, dat, struct mbuf, m_dat) FIELD(MbufC, pktdat, struct mbuf, m_pktdat)
SIZE(Tag, struct m_tag)
FIELD(Tag, link, struct m_tag, m_tag_link) FIELD(Tag, id, struct m_tag, m_tag_id) FIELD(Tag, len, struct m_tag, m_tag_len)
FIELD(Tag, cookie, struct m_tag, m_tag_cookie) FIELD(Tag, free, struct m_tag, m_tag_free)
SIZE(MbArgs, struct mb_args)
FIELD(MbArgs, flags, struct mb_args, flags) FIELD(MbArgs, mtype, struct mb_args, type)
SIZE(Task, struct task)
FIELD(Task, link, struct task, ta_link) FIELD(Task, pending, struct task, ta_pending)
FIELD(Task, priority, struct task, ta_priority) FIELD(Task, flags, struct task, ta_flags)
FIELD(Task, func, struct task, ta_func) FIELD(Task, context, struct task, ta_context)
SIZE(TimeoutTask, struct timeout_task)
FIELD(TimeoutTask, q, struct timeout_task, q) FIELD(TimeoutTask, t, struct timeout_task, t)
FIELD(TimeoutTask, f, struct timeout_task, f)
SIZE(Pcbinfo, struct inpcbinfo)
FIELD(Pcbinfo, vnet, struct inpcbinfo, ipi_vnet)
SIZE(Nhop, struct nhop_object)
FIELD(Nhop, flags, struct nhop_object, nh_flags) FIELD(Nhop, mtu, struct nhop_object, nh_mtu)
FIELD(Nhop, ifp, struct nhop_object, nh_ifp) FIELD(Nhop, aifp, struct nhop_object, nh_aifp)
SIZE(Inpcb, struct inpcb)
FIELD(Inpcb, lock, struct tcpcb, t_inpcb.inp_lock)
FIELD(Inpcb, flags, struct tcpcb, t_inpcb.inp_flags) FIELD(Inpcb, ppcb, struct tcpcb, t_inpcb.inp_ppcb)
FIELD(Inpcb, pcbinfo, struct tcpcb, t_inpcb.inp_pcbinfo) FIELD(Inpcb, vflag, struct tcpcb, t_inpcb.inp_vflag)
FIELD(Inpcb, protocol, struct tcpcb, t_inpcb.inp_ip_p) FIELD(Inpcb, fport, struct tcpcb, t_inpcb.inp_inc.inc_fport)
FIELD(Inpcb, lport, struct tcpcb, t_inpcb.inp_inc.inc_lport)
FIELD(Inpcb, faddr, struct tcpcb, t_inpcb.inp_inc.inc6_faddr) FIELD(Inpcb, laddr, struct tcpcb, t_inpcb.inp_inc.inc6_laddr)
FIELD(Inpcb, gencnt, struct tcpcb, t_inpcb.inp_gencnt) FIELD(Inpcb, fb, struct tcpcb, t_fb)
FIELD(Inpcb, timers, struct tcpcb, t_timers)
/* t_port and t_state lie in the word before. */
const unsigned long field_Inpcb_port_state = __builtin_offsetof(struct tcpcb, t_flags) - 4;
FIELD(Inpcb, rxtshift, struct tcpcb, t_rxtshift) FIELD(Inpcb, t_flags, struct tcpcb, t_flags)

/* The lock word follows the lock object, and the bit fields lie as assumed. */
_Static_assert(__builtin_offsetof(struct mtx, mtx_lock) == sizeof(struct lock_object), "mtx");
_Static_assert(__builtin_offsetof(struct sx, sx_lock) == sizeof(struct lock_object), "sx");
_Static_assert(__builtin_offsetof(struct rwlock, rw_lock) == sizeof(struct lock_object), "rwlock");
_Static_assert(sizeof(struct inpcb) <= 392, "inpcb");
_Static_assert(sizeof(((struct tcpcb *)0)->t_timers) == 5 * sizeof(sbintime_t), "t_timers");
_Static_assert(__builtin_offsetof(struct tcp_function_block, tfb_tcp_block_name) == 0, "tcp_function_block");
_Static_assert(__builtin_offsetof(struct in_addr_4in6, ia46_addr4) == 12, "an IPv4 address lies at the end");
const struct tcpcb state = { .t_state = 0x9 };
const struct mbuf bits = {
	.m_type = 0x12, .m_flags = 0x345678, .m_ext = { .ext_type = 0x9a, .ext_flags = 0xbcdef0 },
};

VALUE(MHLEN) VALUE(MLEN) VALUE(MSIZE) VALUE(MCLBYTES)
VALUE(M_EXT) VALUE(M_PKTHDR) VALUE(M_RDONLY) VALUE(M_BCAST) VALUE(M_MCAST) VALUE(M_EXTPG) VALUE(M_COPYFLAGS)
VALUE(M_PROTOFLAGS) VALUE(M_FASTFWD_OURS) VALUE(M_IP_NEXTHOP) VALUE(M_SKIP_FIREWALL)
VALUE(MTAG_ABI_COMPAT) VALUE(PACKET_TAG_IPFORWARD)
VALUE(MT_DATA) VALUE(EXT_CLUSTER) VALUE(EXT_FLAG_EMBREF)
VALUE(CSUM_UDP) VALUE(CSUM_TCP) VALUE(CSUM_IP_TSO) VALUE(CSUM_UDP_IPV6) VALUE(CSUM_TCP_IPV6) VALUE(CSUM_IP6_TSO)
VALUE(CSUM_IP_CHECKED) VALUE(CSUM_IP_VALID) VALUE(CSUM_PSEUDO_HDR) VALUE(CSUM_DATA_VALID)
VALUE(M_NOWAIT) VALUE(M_WAITOK) VALUE(M_ZERO) VALUE(M_VERSION)
VALUE(PFIL_VERSION) VALUE(PFIL_IN) VALUE(PFIL_OUT) VALUE(PFIL_FWD) VALUE(PFIL_HEADPTR) VALUE(PFIL_HOOKPTR)
VALUE(PFIL_APPEND) VALUE(PFIL_UNLINK) VALUE(PFIL_PASS) VALUE(PFIL_DROPPED) VALUE(PFIL_CONSUMED)
VALUE(PFIL_TYPE_IP4) VALUE(PFIL_TYPE_IP6)
VALUE(MOD_LOAD) VALUE(MOD_UNLOAD) VALUE(MOD_QUIESCE) VALUE(MDT_DEPEND) VALUE(MDT_MODULE)
VALUE(PCATCH) VALUE(PDROP) VALUE(PRIMASK) VALUE(KNF_LISTLOCKED) VALUE(KN_DETACHED) VALUE(EVFILT_READ) VALUE(O_NONBLOCK)
VALUE(POLLIN) VALUE(POLLRDNORM) VALUE(POLLHUP)
VALUE(D_VERSION) VALUE(MAKEDEV_NOWAIT) VALUE(MAKEDEV_CHECKNAME) VALUE(VNET_MAGIC_N)
VALUE(MTX_RECURSE) VALUE(SX_RECURSE) VALUE(RM_RECURSE) VALUE(RM_SLEEPABLE) VALUE(RW_RECURSE) VALUE(LO_INITIALIZED)
VALUE(CTLFLAG_WR) VALUE(CTLFLAG_TUN) VALUE(CTLFLAG_NOFETCH) VALUE(CTLFLAG_VNET) VALUE(CTLFLAG_PRISON) VALUE(CTLFLAG_DYN)
VALUE(INPLOOKUP_WILDCARD) VALUE(INPLOOKUP_RLOCKPCB) VALUE(INPLOOKUP_WLOCKPCB) VALUE(INP_IPV4) VALUE(INP_IPV6)
VALUE(TT_REXMT) VALUE(TT_PERSIST) VALUE(TCP_MAXRXTSHIFT) VALUE(TCPS_TIME_WAIT) VALUE(TF_TSO) VALUE(TASK_NETWORK)
VALUE(NETISR_IP) VALUE(NETISR_IPV6) VALUE(IPPROTO_DONE) VALUE(IP_FORWARDING) VALUE(IP_RAWOUTPUT) VALUE(IPV6_MMTU)
