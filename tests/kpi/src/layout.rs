//! Layouts of FreeBSD 14's kernel structures, as far as module code and this crate both look into them.
//!
//! The test `layout` compares every size and offset with what the C compiler makes of the FreeBSD headers.

use crate::foreign::shared;

shared! {
    /// `struct thread`.
    Td(1776) {
        proc_, set_proc: usize = 8;
        tid, set_tid: i32 = 160;
        owepreempt, set_owepreempt: u8 = 312;
        ucred, set_ucred: usize = 384;
        fpop, set_fpop: usize = 744;
        critnest, set_critnest: u32 = 1228;
        vnet, set_vnet: usize = 1680;
    }
}

shared! {
    /// `struct ucred`.
    Ucred(256) {
        cr_ref, set_ref: u32 = 32;
        uid, set_uid: u32 = 96;
        ruid, set_ruid: u32 = 100;
        prison, set_prison: usize = 136;
    }
}

shared! {
    /// `struct prison`.
    Prison(2176) {
        id, set_id: i32 = 16;
        vnet, set_vnet: usize = 176;
    }
}

shared! {
    /// `struct pcpu`.
    Pcpu(4096) {
        curthread, set_curthread: usize = 0;
        cpuid, set_cpuid: u32 = 60;
        prvspace, set_prvspace: usize = 384;
    }
}

shared! {
    /// `struct vnet`.
    VnetC(64) {
        magic, set_magic: u32 = 16;
        data_mem, set_data_mem: usize = 32;
        data_base, set_data_base: usize = 40;
        shutdown, set_shutdown: u8 = 48;
    }
}

shared! {
    /// `struct vnet_sysinit`.
    VnetSysinit(40) {
        subsystem, set_subsystem: u32 = 0;
        order, set_order: u32 = 4;
        func, set_func: usize = 8;
        arg, set_arg: usize = 16;
    }
}

shared! {
    /// `struct sysinit`.
    Sysinit(32) {
        subsystem, set_subsystem: u32 = 0;
        order, set_order: u32 = 4;
        func, set_func: usize = 16;
        udata, set_udata: usize = 24;
    }
}

shared! {
    /// `struct mod_metadata`.
    ModMetadata(24) {
        md_version, set_version: i32 = 0;
        md_type, set_type: i32 = 4;
        md_data, set_data: usize = 8;
        md_cval, set_cval: usize = 16;
    }
}

shared! {
    /// `struct moduledata`.
    Moduledata(24) {
        name, set_name: usize = 0;
        evhand, set_evhand: usize = 8;
        priv_, set_priv: usize = 16;
    }
}

shared! {
    /// `struct mod_depend`.
    ModDepend(12) {
        md_ver_minimum, set_minimum: i32 = 0;
        md_ver_preferred, set_preferred: i32 = 4;
        md_ver_maximum, set_maximum: i32 = 8;
    }
}

shared! {
    /// `struct malloc_type`.
    MallocType(112) {
        version, set_version: u64 = 8;
        shortdesc, set_shortdesc: usize = 16;
    }
}

shared! {
    /// `struct lock_object`, with which every lock begins.
    LockObject(24) {
        name, set_name: usize = 0;
        flags, set_flags: u32 = 8;
        data, set_data: u32 = 12;
        witness, set_witness: usize = 16;
    }
}

shared! {
    /// `struct pfil_hook_args`.
    PfilHookArgs(56) {
        version, set_version: i32 = 0;
        flags, set_flags: i32 = 4;
        type_, set_type: i32 = 8;
        mbuf_chk, set_mbuf_chk: usize = 16;
        mem_chk, set_mem_chk: usize = 24;
        ruleset, set_ruleset: usize = 32;
        modname, set_modname: usize = 40;
        rulname, set_rulname: usize = 48;
    }
}

shared! {
    /// `struct pfil_link_args`.
    PfilLinkArgs(32) {
        version, set_version: i32 = 0;
        flags, set_flags: i32 = 4;
        head, set_head: usize = 8;
        hook, set_hook: usize = 16;
        rulname, set_rulname: usize = 24;
    }
}

shared! {
    /// `struct ifnet`.
    Ifnet(1288) {
        index, set_index: u16 = 84;
        idxgen, set_idxgen: u16 = 86;
        flags, set_flags: i32 = 112;
        mtu, set_mtu: i32 = 160;
        hwassist, set_hwassist: u64 = 176;
        tsomax, set_tsomax: u32 = 1200;
        tsomaxsegcount, set_tsomaxsegcount: u32 = 1204;
        tsomaxsegsize, set_tsomaxsegsize: u32 = 1208;
        vnet, set_vnet: usize = 904;
    }
}
/// Offset of `if_xname` in `struct ifnet`.
pub(crate) const IF_XNAME: usize = 88;
/// Room in `if_xname`.
pub(crate) const IFNAMSIZ: usize = 16;

shared! {
    /// `struct cdev`.
    Cdev(480) {
        flags, set_flags: u32 = 8;
        uid, set_uid: u32 = 64;
        mode, set_mode: u16 = 72;
        drv1, set_drv1: usize = 168;
        drv2, set_drv2: usize = 176;
        devsw, set_devsw: usize = 184;
        usecount, set_usecount: u64 = 200;
        threadcount, set_threadcount: u64 = 208;
    }
}
/// Offset of `si_name` in `struct cdev`.
pub(crate) const SI_NAME: usize = 224;

shared! {
    /// `struct cdevsw`.
    Cdevsw(184) {
        version, set_version: u32 = 0;
        flags, set_flags: u32 = 4;
        name, set_name: usize = 8;
        open, set_open: usize = 16;
        close, set_close: usize = 32;
        read, set_read: usize = 40;
        write, set_write: usize = 48;
        ioctl, set_ioctl: usize = 56;
        poll, set_poll: usize = 64;
        kqfilter, set_kqfilter: usize = 96;
        purge, set_purge: usize = 104;
    }
}

shared! {
    /// `struct sdt_probe`, SDT(9).
    SdtProbe(96) {
        version, set_version: i32 = 0;
        name, set_name: usize = 64;
        id, set_id: i64 = 72;
    }
}

shared! {
    /// `struct sdt_argtype`.
    SdtArgtype(48) {
        ndx, set_ndx: i32 = 0;
        type_, set_type: usize = 8;
        probe, set_probe: usize = 40;
    }
}

shared! {
    /// `struct uio`, uio(9).
    Uio(48) {
        iov, set_iov: usize = 0;
        iovcnt, set_iovcnt: i32 = 8;
        offset, set_offset: i64 = 16;
        resid, set_resid: i64 = 24;
        segflg, set_segflg: i32 = 32;
        rw, set_rw: i32 = 36;
        td, set_td: usize = 40;
    }
}

shared! {
    /// `struct iovec`.
    Iovec(16) {
        base, set_base: u64 = 0;
        len, set_len: u64 = 8;
    }
}

shared! {
    /// `struct knote`, kqueue(9).
    Knote(160) {
        knlist, set_knlist: usize = 16;
        kq, set_kq: usize = 40;
        filter, set_filter: i16 = 56;
        flags, set_flags: u16 = 58;
        data, set_data: i64 = 64;
        hook, set_hook: usize = 112;
        status, set_status: i32 = 124;
        fop, set_fop: usize = 152;
    }
}

shared! {
    /// `struct filterops`.
    Filterops(40) {
        isfd, set_isfd: i32 = 0;
        detach, set_detach: usize = 16;
        event, set_event: usize = 24;
    }
}

shared! {
    /// `struct make_dev_args`.
    MakeDevArgs(64) {
        size, set_size: usize = 0;
        flags, set_flags: i32 = 8;
        devsw, set_devsw: usize = 16;
        cr, set_cr: usize = 24;
        uid, set_uid: u32 = 32;
        gid, set_gid: u32 = 36;
        mode, set_mode: i32 = 40;
        unit, set_unit: i32 = 44;
        drv1, set_drv1: usize = 48;
        drv2, set_drv2: usize = 56;
    }
}

shared! {
    /// `struct sysctl_oid`.
    Oid(112) {
        parent, set_parent: usize = 8;
        number, set_number: i32 = 40;
        kind, set_kind: u32 = 44;
        arg1, set_arg1: usize = 48;
        arg2, set_arg2: i64 = 56;
        name, set_name: usize = 64;
        handler, set_handler: usize = 72;
        fmt, set_fmt: usize = 80;
        descr, set_descr: usize = 96;
    }
}

shared! {
    /// `struct sysctl_req`.
    Req(96) {
        td, set_td: usize = 0;
        lock, set_lock: i32 = 8;
        oldptr, set_oldptr: usize = 16;
        oldlen, set_oldlen: usize = 24;
        oldidx, set_oldidx: usize = 32;
        oldfunc, set_oldfunc: usize = 40;
        newptr, set_newptr: usize = 48;
        newlen, set_newlen: usize = 56;
        newidx, set_newidx: usize = 64;
        newfunc, set_newfunc: usize = 72;
        validlen, set_validlen: usize = 80;
        flags, set_flags: i32 = 88;
    }
}

shared! {
    /// `struct mbuf`. The handle of a live one is [`M`](crate::mbuf::M).
    MbufC(256) {
        next, set_next: usize = 0;
        nextpkt, set_nextpkt: usize = 8;
        data, set_data: usize = 16;
        len, set_len: i32 = 24;
        type_flags, set_type_flags: u32 = 28;
        rcvif, set_rcvif: usize = 32;
        leaf_rcvif, set_leaf_rcvif: usize = 40;
        tags, set_tags: usize = 48;
        pkt_len, set_pkt_len: i32 = 56;
        flowid, set_flowid: u32 = 60;
        csum_flags, set_csum_flags: u32 = 64;
        fibnum, set_fibnum: u16 = 68;
        rsstype, set_rsstype: u8 = 71;
        tso_segsz, set_tso_segsz: u16 = 82;
        csum_data, set_csum_data: u32 = 84;
        loc, set_loc: u64 = 88;
        ext_count, set_ext_count: u32 = 96;
        ext_cnt, set_ext_cnt: usize = 96;
        ext_size, set_ext_size: u32 = 104;
        ext_type_flags, set_ext_type_flags: u32 = 108;
        ext_buf, set_ext_buf: usize = 112;
        ext_arg2, set_ext_arg2: usize = 120;
        ext_free, set_ext_free: usize = 240;
        ext_arg1, set_ext_arg1: usize = 248;
    }
}
/// Offset of `m_dat`, where an mbuf without packet header has its data.
pub(crate) const M_DAT: usize = 32;
/// Offset of `m_pktdat`, where one with a packet header has its data.
pub(crate) const M_PKTDAT: usize = 96;
/// Size of an mbuf.
pub(crate) const MSIZE: usize = 256;
/// Room in an mbuf without packet header.
pub(crate) const MLEN: usize = MSIZE - M_DAT;
/// Room in an mbuf with one.
pub(crate) const MHLEN: usize = MSIZE - M_PKTDAT;
/// Size of a cluster.
pub(crate) const MCLBYTES: usize = 2048;
