//! FreeBSD's route(4): what its socket tells, and the lists that sysctl(3) gives in the same words.
//!
//! Offsets are those of FreeBSD 14 on amd64; [`LAYOUT`] lists them for the test
//! that asks the C compiler.

use super::{Address, Gateway, Interface, Snapshot};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const RTM_VERSION: u8 = 5;
const RTM_ADD: u8 = 0x1;
const RTM_DELETE: u8 = 0x2;
const RTM_CHANGE: u8 = 0x3;
const RTM_GET: u8 = 0x4;
const RTM_NEWADDR: u8 = 0xc;
const RTM_DELADDR: u8 = 0xd;
const RTM_IFINFO: u8 = 0xe;
const RTM_IFANNOUNCE: u8 = 0x11;

const RT_MSGHDR: usize = 152;
const RTM_INDEX: usize = 4;
const RTM_FLAGS: usize = 8;
const RTM_ADDRS: usize = 12;

const IF_DATA: usize = 16;
const IFM_ADDRS: usize = 4;
const IFM_FLAGS: usize = 8;
const IFM_INDEX: usize = 12;
const IFI_LINK_STATE: usize = 4;
const IFI_DATALEN: usize = 6;

const IFA_MSGHDR: usize = 20;

const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_RUNNING: u32 = 0x40;
const LINK_STATE_DOWN: u8 = 1;

const RTF_UP: u32 = 0x1;
const RTF_GATEWAY: u32 = 0x2;

const RTA_DST: u32 = 0x1;
const RTA_GATEWAY: u32 = 0x2;
const RTA_NETMASK: u32 = 0x4;
const RTA_IFP: u32 = 0x10;
const RTA_IFA: u32 = 0x20;

const AF_INET: u8 = 2;
const AF_LINK: u8 = 18;
const AF_INET6: u8 = 28;

const DEFROUTER: usize = 48;
const DEFROUTER_INDEX: usize = 40;

/// `IN6_IFF_*` of netinet6/in6_var.h.
const TENTATIVE: u32 = 0x2;
const DUPLICATED: u32 = 0x4;
const DETACHED: u32 = 0x8;
const DEPRECATED: u32 = 0x10;
const TEMPORARY: u32 = 0x80;

/// `SIOCGIFAFLAG_IN6`, the length of its argument, and where in it are address and flags.
pub const GET_FLAGS: u64 = 0xc120_6949;
/// Length of the argument.
pub const IN6_IFREQ: usize = 288;
/// Where the address is, and afterwards the flags.
pub const IFR_IFRU: usize = 16;

/// The numbers above, each with the C expression that it must equal.
pub const LAYOUT: &[(&str, usize)] = &[
    ("RTM_VERSION", RTM_VERSION as usize),
    ("RTM_ADD", RTM_ADD as usize),
    ("RTM_DELETE", RTM_DELETE as usize),
    ("RTM_CHANGE", RTM_CHANGE as usize),
    ("RTM_GET", RTM_GET as usize),
    ("RTM_NEWADDR", RTM_NEWADDR as usize),
    ("RTM_DELADDR", RTM_DELADDR as usize),
    ("RTM_IFINFO", RTM_IFINFO as usize),
    ("RTM_IFANNOUNCE", RTM_IFANNOUNCE as usize),
    ("sizeof(struct rt_msghdr)", RT_MSGHDR),
    ("offsetof(struct rt_msghdr, rtm_index)", RTM_INDEX),
    ("offsetof(struct rt_msghdr, rtm_flags)", RTM_FLAGS),
    ("offsetof(struct rt_msghdr, rtm_addrs)", RTM_ADDRS),
    ("offsetof(struct if_msghdr, ifm_data)", IF_DATA),
    ("offsetof(struct if_msghdr, ifm_addrs)", IFM_ADDRS),
    ("offsetof(struct if_msghdr, ifm_flags)", IFM_FLAGS),
    ("offsetof(struct if_msghdr, ifm_index)", IFM_INDEX),
    ("offsetof(struct if_data, ifi_link_state)", IFI_LINK_STATE),
    ("offsetof(struct if_data, ifi_datalen)", IFI_DATALEN),
    ("sizeof(struct ifa_msghdr)", IFA_MSGHDR),
    ("offsetof(struct ifa_msghdr, ifam_addrs)", IFM_ADDRS),
    ("offsetof(struct ifa_msghdr, ifam_index)", IFM_INDEX),
    ("IFF_UP", IFF_UP as usize),
    ("IFF_LOOPBACK", IFF_LOOPBACK as usize),
    ("IFF_DRV_RUNNING", IFF_RUNNING as usize),
    ("LINK_STATE_DOWN", LINK_STATE_DOWN as usize),
    ("RTF_UP", RTF_UP as usize),
    ("RTF_GATEWAY", RTF_GATEWAY as usize),
    ("RTA_DST", RTA_DST as usize),
    ("RTA_GATEWAY", RTA_GATEWAY as usize),
    ("RTA_NETMASK", RTA_NETMASK as usize),
    ("RTA_IFP", RTA_IFP as usize),
    ("RTA_IFA", RTA_IFA as usize),
    ("AF_INET", AF_INET as usize),
    ("AF_LINK", AF_LINK as usize),
    ("AF_INET6", AF_INET6 as usize),
    ("offsetof(struct sockaddr_dl, sdl_nlen)", 5),
    ("offsetof(struct sockaddr_dl, sdl_data)", 8),
    ("sizeof(struct in6_defrouter)", DEFROUTER),
    ("offsetof(struct in6_defrouter, if_index)", DEFROUTER_INDEX),
    ("IN6_IFF_TENTATIVE", TENTATIVE as usize),
    ("IN6_IFF_DUPLICATED", DUPLICATED as usize),
    ("IN6_IFF_DETACHED", DETACHED as usize),
    ("IN6_IFF_DEPRECATED", DEPRECATED as usize),
    ("IN6_IFF_TEMPORARY", TEMPORARY as usize),
    ("SIOCGIFAFLAG_IN6", GET_FLAGS as usize),
    ("sizeof(struct in6_ifreq)", IN6_IFREQ),
    ("offsetof(struct in6_ifreq, ifr_ifru)", IFR_IFRU),
];

/// Whether a message of the socket tells that interfaces, addresses or routes changed.
#[must_use]
pub fn is_change(message: &[u8]) -> bool {
    let kind = message.get(3).copied().unwrap_or_default();
    matches!(kind, RTM_ADD | RTM_DELETE | RTM_CHANGE | RTM_NEWADDR | RTM_DELADDR | RTM_IFINFO | RTM_IFANNOUNCE)
}

/// The messages of a list, with their kind.
fn messages(mut list: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(ne16(list, 0)?);
        let message = list.get(..length).filter(|message| message.len() >= 4)?;
        list = list.get(length..)?;
        Some((*message.get(3)?, message))
    })
    .filter(|(_, message)| message.get(2) == Some(&RTM_VERSION))
}

/// Takes in the list `NET_RT_IFLIST`: interfaces and addresses.
pub fn interfaces(list: &[u8], into: &mut Snapshot) {
    for (kind, message) in messages(list) {
        match kind {
            RTM_IFINFO => into.interfaces.extend(interface(message)),
            RTM_NEWADDR => into.addresses.extend(address(message)),
            _ => {}
        }
    }
}

fn interface(message: &[u8]) -> Option<Interface> {
    let flags = ne32(message, IFM_FLAGS)?;
    let data = message.get(IF_DATA..)?;
    let link_state = *data.get(IFI_LINK_STATE)?;
    let rest = data.get(usize::from(ne16(data, IFI_DATALEN)?)..)?;
    let link = sockaddr(rest, ne32(message, IFM_ADDRS)?, RTA_IFP).filter(|link| link.get(1) == Some(&AF_LINK))?;
    let name = link.get(8..)?.get(..usize::from(*link.get(5)?))?;
    Some(Interface {
        index: ne16(message, IFM_INDEX)?.into(),
        name: String::from_utf8_lossy(name).into_owned(),
        up: flags & IFF_UP != 0,
        // What cannot tell says that it does not know.
        running: flags & IFF_RUNNING != 0 && link_state != LINK_STATE_DOWN,
        loopback: flags & IFF_LOOPBACK != 0,
    })
}

fn address(message: &[u8]) -> Option<Address> {
    let (rest, which) = (message.get(IFA_MSGHDR..)?, ne32(message, IFM_ADDRS)?);
    let ip = ip(sockaddr(rest, which, RTA_IFA)?)?;
    let length = mask(sockaddr(rest, which, RTA_NETMASK).unwrap_or_default(), ip);
    Some(Address::new(ip, length, ne16(message, IFM_INDEX)?.into()))
}

/// Takes in the list `NET_RT_DUMP`: default routes, in their order.
pub fn routes(list: &[u8], into: &mut Snapshot) {
    for (kind, message) in messages(list) {
        if kind == RTM_GET {
            into.gateways.extend(route(message));
        }
    }
}

fn route(message: &[u8]) -> Option<Gateway> {
    let wanted = RTF_UP | RTF_GATEWAY;
    if ne32(message, RTM_FLAGS)? & wanted != wanted {
        return None;
    }
    let (rest, which) = (message.get(RT_MSGHDR..)?, ne32(message, RTM_ADDRS)?);
    let destination = ip(sockaddr(rest, which, RTA_DST)?)?;
    let length = if which & RTA_NETMASK == 0 { 32 } else { mask(sockaddr(rest, which, RTA_NETMASK)?, destination) };
    let address = ip(sockaddr(rest, which, RTA_GATEWAY)?)?;
    (destination.is_unspecified() && length == 0).then_some(Gateway {
        interface: ne16(message, RTM_INDEX)?.into(),
        address,
        rank: 0,
    })
}

/// Takes in `net.inet6.icmp6.nd6_drlist`: IPv6 routers that announced themselves, also those that have no route.
pub fn routers(list: &[u8], into: &mut Snapshot) {
    for router in list.chunks_exact(DEFROUTER) {
        let (Some(address), Some(index)) = (ip(router), ne16(router, DEFROUTER_INDEX)) else { continue };
        let interface = u32::from(index);
        let known = |gateway: &Gateway| gateway.interface == interface && gateway.address == address;
        if !into.gateways.iter().any(known) {
            into.gateways.push(Gateway { interface, address, rank: 1 });
        }
    }
}

/// Takes in the flags of an IPv6 address.
pub const fn flags(flags: u32, into: &mut Address) {
    into.tentative = flags & TENTATIVE != 0;
    into.duplicated = flags & DUPLICATED != 0;
    into.detached = flags & DETACHED != 0;
    into.deprecated = flags & DEPRECATED != 0;
    into.temporary = flags & TEMPORARY != 0;
}

/// A `struct sockaddr_in6`.
#[must_use]
pub fn sockaddr6(ip: Ipv6Addr) -> [u8; 28] {
    let mut bytes = [0; 28];
    let parts = [28, AF_INET6, 0, 0, 0, 0, 0, 0].into_iter().chain(ip.octets());
    bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
    bytes
}

/// The socket address `wanted` of those that `which` says are there.
fn sockaddr(mut rest: &[u8], which: u32, wanted: u32) -> Option<&[u8]> {
    for bit in (0..8).map(|shift| 1 << shift) {
        if which & bit == 0 {
            continue;
        }
        let length = usize::from(*rest.first()?);
        let padded = length.next_multiple_of(8).max(8);
        if bit == wanted {
            return rest.get(..length.max(1));
        }
        rest = rest.get(padded..)?;
    }
    None
}

fn ip(sockaddr: &[u8]) -> Option<IpAddr> {
    match *sockaddr.get(1)? {
        AF_INET => Some(Ipv4Addr::from(*sockaddr.get(4..)?.first_chunk::<4>()?).into()),
        AF_INET6 => {
            let mut octets = *sockaddr.get(8..)?.first_chunk::<16>()?;
            // The kernel may have the interface in the middle of a link-local address.
            if let [0xfe, 0x80, high, low, ..] = &mut octets {
                (*high, *low) = (0, 0);
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

/// The length of a network mask, whose socket address may end early.
fn mask(sockaddr: &[u8], like: IpAddr) -> u8 {
    let (at, length) = if like.is_ipv4() { (4, 4) } else { (8, 16) };
    let bytes = sockaddr.get(at..).unwrap_or_default().iter().take(length);
    let ones: u32 = bytes.map(|byte| byte.leading_ones()).sum();
    u8::try_from(ones).unwrap_or(128)
}

fn ne16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn ne32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pad(mut sockaddr: Vec<u8>) -> Vec<u8> {
        sockaddr.resize(sockaddr.len().next_multiple_of(8).max(8), 0);
        sockaddr
    }

    fn four(ip: [u8; 4]) -> Vec<u8> {
        pad([&[16, AF_INET, 0, 0][..], &ip, &[0; 8]].concat())
    }

    fn six(ip: &str) -> Vec<u8> {
        pad(sockaddr6(ip.parse().unwrap()).to_vec())
    }

    fn message(kind: u8, header: usize, fields: &[(usize, &[u8])], sockaddrs: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0; header];
        for (at, value) in fields {
            bytes[*at..at + value.len()].copy_from_slice(value);
        }
        bytes.extend(sockaddrs.concat());
        let length = bytes.len() as u16;
        bytes[..2].copy_from_slice(&length.to_ne_bytes());
        (bytes[2], bytes[3]) = (RTM_VERSION, kind);
        bytes
    }

    fn host(link_state: u8) -> Snapshot {
        let word = |word: u32| word.to_ne_bytes();
        let link = pad([&[11, AF_LINK, 3, 0, 6, 3, 0, 0][..], b"em0"].concat());
        let mut list = message(
            RTM_IFINFO,
            168,
            &[
                (IFM_ADDRS, &word(RTA_IFP)),
                (IFM_FLAGS, &word(IFF_UP | IFF_RUNNING)),
                (IFM_INDEX, &3_u16.to_ne_bytes()),
                (IF_DATA + IFI_LINK_STATE, &[link_state]),
                (IF_DATA + IFI_DATALEN, &152_u16.to_ne_bytes()),
            ],
            std::slice::from_ref(&link),
        );
        let which = word(RTA_NETMASK | RTA_IFP | RTA_IFA);
        let fields: [(usize, &[u8]); 2] = [(IFM_ADDRS, &which), (IFM_INDEX, &3_u16.to_ne_bytes())];
        let own = [four([255, 255, 255, 0]), link.clone(), four([192, 0, 2, 9])];
        list.extend(message(RTM_NEWADDR, IFA_MSGHDR, &fields, &own));
        let own = [six("ffff:ffff:ffff:ffff::"), link, six("fe80:3::9")];
        list.extend(message(RTM_NEWADDR, IFA_MSGHDR, &fields, &own));
        let mut snapshot = Snapshot::default();
        interfaces(&list, &mut snapshot);

        let which = word(RTA_DST | RTA_GATEWAY | RTA_NETMASK);
        let flags = word(RTF_UP | RTF_GATEWAY);
        let index = 3_u16.to_ne_bytes();
        let fields: [(usize, &[u8]); 3] = [(RTM_ADDRS, &which), (RTM_FLAGS, &flags), (RTM_INDEX, &index)];
        // The mask of a default route may be nothing at all.
        let default = [four([0; 4]), four([192, 0, 2, 1]), pad(vec![])];
        let other = [four([10, 0, 0, 0]), four([192, 0, 2, 2]), four([255, 0, 0, 0])];
        let list: Vec<u8> = [default, other].iter().flat_map(|own| message(RTM_GET, RT_MSGHDR, &fields, own)).collect();
        routes(&list, &mut snapshot);
        let mut router = sockaddr6("fe80:3::1".parse().unwrap()).to_vec();
        router.resize(DEFROUTER, 0);
        router[DEFROUTER_INDEX] = 3;
        routers(&router, &mut snapshot);
        snapshot
    }

    #[test]
    fn a_host_is_read() {
        let snapshot = host(2);
        let em0 = Interface { index: 3, name: "em0".into(), up: true, running: true, loopback: false };
        assert_eq!(snapshot.interfaces, [em0]);
        let addresses = [("192.0.2.9", 24), ("fe80::9", 64)];
        assert_eq!(snapshot.addresses, addresses.map(|(ip, length)| Address::new(ip.parse().unwrap(), length, 3)));
        let gateways = [("192.0.2.1", 0), ("fe80::1", 1)];
        let gateway = |(ip, rank): (&str, u32)| Gateway { interface: 3, address: ip.parse().unwrap(), rank };
        assert_eq!(snapshot.gateways, gateways.map(gateway));
        assert!(!host(LINK_STATE_DOWN).interfaces[0].running, "the cable is out");
    }

    #[test]
    fn flags_are_told_apart() {
        let mut address = Address::new("2001:db8::9".parse().unwrap(), 64, 1);
        flags(TENTATIVE | TEMPORARY, &mut address);
        assert!(address.tentative && address.temporary && !address.deprecated);
        flags(DEPRECATED | DETACHED, &mut address);
        assert!(address.deprecated && address.detached && !address.tentative && !address.temporary);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0_u8..20) {
            let mut snapshot = Snapshot::default();
            let mut framed = bytes.clone();
            if framed.len() >= 4 {
                framed[..2].copy_from_slice(&(bytes.len() as u16).to_ne_bytes());
                (framed[2], framed[3]) = (RTM_VERSION, kind);
            }
            for list in [bytes, framed] {
                interfaces(&list, &mut snapshot);
                routes(&list, &mut snapshot);
                routers(&list, &mut snapshot);
                let _ = is_change(&list);
            }
        }
    }
}
