//! What this crate believes about FreeBSD's headers, for the test that asks the C compiler.

use crate::layout;
use crate::mbuf::{csum, flag};

/// A structure: its name here, its size, and its fields with their offsets.
pub type Structure = (&'static str, usize, &'static [(&'static str, usize)]);

/// The structures.
#[must_use]
pub fn structures() -> Vec<Structure> {
    macro_rules! list {
        ($($path:path),* $(,)?) => { vec![$({
            use $path as It;
            let name = stringify!($path).rsplit("::").next().unwrap_or_default().trim();
            (name, It::SIZE, It::FIELDS)
        }),*] };
    }
    let mut all: Vec<Structure> = list![
        layout::Td,
        layout::Ucred,
        layout::Prison,
        layout::Pcpu,
        layout::VnetC,
        layout::VnetSysinit,
        layout::Sysinit,
        layout::ModMetadata,
        layout::Moduledata,
        layout::ModDepend,
        layout::MallocType,
        layout::LockObject,
        layout::PfilHookArgs,
        layout::PfilLinkArgs,
        layout::Ifnet,
        layout::Cdev,
        layout::Cdevsw,
        layout::SdtProbe,
        layout::SdtArgtype,
        layout::Uio,
        layout::Iovec,
        layout::Knote,
        layout::Filterops,
        layout::MakeDevArgs,
        layout::Oid,
        layout::Req,
        layout::MbufC,
        crate::tags::Tag,
        crate::taskqueue::Task,
        crate::taskqueue::TimeoutTask,
        crate::routing::Nhop,
        crate::mbuf::MbArgs,
    ];
    all.push(("Ifnet", layout::Ifnet::SIZE, &[("xname", layout::IF_XNAME)]));
    all.push(("Cdev", layout::Cdev::SIZE, &[("name", layout::SI_NAME)]));
    all.push(("TimeoutTask", crate::taskqueue::TimeoutTask::SIZE, &[("t", crate::taskqueue::TT_TASK)]));
    all.push(("Inpcb", crate::connections::INPCB, &[("lock", crate::connections::INP_LOCK)]));
    all.push(("Inpcb", crate::connections::INPCB, crate::connections::Tcpcb::FIELDS));
    all.push(("Pcbinfo", crate::connections::INFO, &[("vnet", crate::connections::INFO_VNET)]));
    all.push(("MbufC", layout::MbufC::SIZE, &[("dat", layout::M_DAT), ("pktdat", layout::M_PKTDAT)]));
    all
}

/// Constants, by their names in C, as 32-bit numbers.
#[must_use]
pub fn values() -> Vec<(&'static str, u32)> {
    let mut all = vec![
        ("MHLEN", layout::MHLEN as u32),
        ("MLEN", layout::MLEN as u32),
        ("MSIZE", layout::MSIZE as u32),
        ("MCLBYTES", layout::MCLBYTES as u32),
        ("M_EXT", flag::EXT),
        ("M_PKTHDR", flag::PKTHDR),
        ("M_RDONLY", flag::RDONLY),
        ("M_BCAST", flag::BCAST),
        ("M_MCAST", flag::MCAST),
        ("M_EXTPG", flag::EXTPG),
        ("M_COPYFLAGS", flag::COPY),
        ("M_PROTOFLAGS", flag::PROTO),
        ("M_FASTFWD_OURS", flag::FASTFWD_OURS),
        ("M_IP_NEXTHOP", flag::NEXTHOP),
        ("M_SKIP_FIREWALL", flag::SKIP_FIREWALL),
        ("MT_DATA", crate::mbuf::MT_DATA),
        ("EXT_CLUSTER", crate::mbuf::EXT_CLUSTER),
        ("CSUM_UDP", csum::UDP),
        ("CSUM_TCP", csum::TCP),
        ("CSUM_IP_TSO", csum::IP_TSO),
        ("CSUM_UDP_IPV6", csum::UDP_IPV6),
        ("CSUM_TCP_IPV6", csum::TCP_IPV6),
        ("CSUM_IP6_TSO", csum::IP6_TSO),
        ("CSUM_IP_CHECKED", csum::IP_CHECKED),
        ("CSUM_IP_VALID", csum::IP_VALID),
        ("CSUM_PSEUDO_HDR", csum::PSEUDO_HDR),
        ("CSUM_DATA_VALID", csum::DATA_VALID),
    ];
    for list in [
        crate::mbuf::FACTS,
        crate::tags::FACTS,
        crate::malloc::FACTS,
        crate::pfil::FACTS,
        crate::linker::FACTS,
        crate::cdev::FACTS,
        crate::waiting::FACTS,
        crate::vnet::FACTS,
        crate::lock::FACTS,
        crate::oids::FACTS,
        crate::sysctl::FACTS,
        crate::ip::OUTPUT_FACTS,
        crate::connections::FACTS,
        crate::ip::FACTS,
        crate::netisr::FACTS,
        crate::taskqueue::FACTS,
    ] {
        all.extend_from_slice(list);
    }
    all
}
