//! Linux's rtnetlink(7): the requests and the answers.

use super::{Address, Gateway, Interface, Snapshot};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

/// Links, addresses, routes: what is dumped one after the other.
pub const DUMPS: [u16; 3] = [18, 22, 26];
/// Multicast groups: links, and addresses and routes of both IP versions.
pub const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

const INET: u8 = 2;
const INET6: u8 = 10;

const IFINFOMSG: usize = 16;
const IFADDRMSG: usize = 8;
const RTMSG: usize = 12;

const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_RUNNING: u32 = 0x40;

const IFLA_IFNAME: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;

const IFA_F_TEMPORARY: u32 = 0x01;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_DEPRECATED: u32 = 0x20;
const IFA_F_TENTATIVE: u32 = 0x40;

const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;

/// The request for a dump of `kind`, one of [`DUMPS`].
#[must_use]
pub fn request(kind: u16, sequence: u32) -> [u8; HEADER + IFINFOMSG] {
    let mut request = [0; HEADER + IFINFOMSG];
    let header = [
        &((HEADER + IFINFOMSG) as u32).to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes(),
        &sequence.to_ne_bytes(),
    ]
    .concat();
    for (to, from) in request.iter_mut().zip(header) {
        *to = from;
    }
    request
}

/// Takes in the messages of one datagram. Returns whether the dump has ended.
///
/// # Errors
/// The errno of the kernel's; 0 for a datagram that makes no sense.
pub fn parse(datagram: &[u8], sequence: u32, into: &mut Snapshot) -> Result<bool, i32> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let length = ne32(rest, 0).and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
        let message = rest.get(..length).filter(|message| message.len() >= HEADER).ok_or(0)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        if ne32(message, 8) != Some(sequence) {
            continue;
        }
        let body = message.get(HEADER..).unwrap_or_default();
        match ne16(message, 4) {
            Some(NLMSG_DONE) => return Ok(true),
            Some(NLMSG_ERROR) => {
                return Err(ne32(body, 0).map_or(0, |errno| errno.cast_signed().saturating_neg()));
            }
            Some(RTM_NEWLINK) => into.interfaces.extend(link(body)),
            Some(RTM_NEWADDR) => into.addresses.extend(address(body)),
            Some(RTM_NEWROUTE) => into.gateways.extend(gateway(body)),
            _ => {}
        }
    }
    Ok(false)
}

fn link(body: &[u8]) -> Option<Interface> {
    let flags = ne32(body, 8)?;
    let name = attribute(body.get(IFINFOMSG..)?, IFLA_IFNAME)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(Interface {
        index: ne32(body, 4)?,
        name: String::from_utf8_lossy(name).into_owned(),
        up: flags & IFF_UP != 0,
        running: flags & IFF_RUNNING != 0,
        loopback: flags & IFF_LOOPBACK != 0,
    })
}

fn address(body: &[u8]) -> Option<Address> {
    let (family, length) = (*body.first()?, *body.get(1)?);
    let attributes = body.get(IFADDRMSG..)?;
    // On a link with two ends, the other one is IFA_ADDRESS.
    let bytes = attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS))?;
    let flags = attribute(attributes, IFA_FLAGS).and_then(|bytes| ne32(bytes, 0));
    let flags = flags.or_else(|| body.get(2).map(|flags| u32::from(*flags)))?;
    Some(Address {
        tentative: flags & IFA_F_TENTATIVE != 0,
        duplicated: flags & IFA_F_DADFAILED != 0,
        deprecated: flags & IFA_F_DEPRECATED != 0,
        // Of IPv4 the same bit says that it is not the first of its network.
        temporary: family == INET6 && flags & IFA_F_TEMPORARY != 0,
        ..Address::new(ip(family, bytes)?, length, ne32(body, 4)?)
    })
}

/// A default route.
fn gateway(body: &[u8]) -> Option<Gateway> {
    let &[family, length, _, _, table, _, _, kind] = body.first_chunk::<8>()?;
    if length != 0 || table != RT_TABLE_MAIN || kind != RTN_UNICAST {
        return None;
    }
    let attributes = body.get(RTMSG..)?;
    Some(Gateway {
        interface: ne32(attribute(attributes, RTA_OIF)?, 0)?,
        address: ip(family, attribute(attributes, RTA_GATEWAY)?)?,
        rank: attribute(attributes, RTA_PRIORITY).and_then(|bytes| ne32(bytes, 0)).unwrap_or_default(),
    })
}

fn ip(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        INET => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
        INET6 => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()),
        _ => None,
    }
}

fn attribute(mut rest: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(ne16(rest, 0)?);
        let value = rest.get(4..length)?;
        if ne16(rest, 2)? & 0x3fff == kind {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
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

    fn message(kind: u16, body: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = body.to_vec();
        for (kind, value) in attributes {
            bytes.extend((value.len() as u16 + 4).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let mut message = (bytes.len() as u32 + 16).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([2, 0]);
        message.extend(7_u32.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(bytes);
        message
    }

    #[test]
    fn a_host_is_read() {
        let mut link = vec![0; 4];
        link.extend(3_u32.to_ne_bytes());
        link.extend((IFF_UP | IFF_RUNNING).to_ne_bytes());
        link.extend([0; 4]);
        let mut datagram = message(RTM_NEWLINK, &link, &[(IFLA_IFNAME, b"em0\0")]);
        let mut address = vec![INET6, 64, 0, 0];
        address.extend(3_u32.to_ne_bytes());
        let flags = (IFA_F_TEMPORARY | IFA_F_TENTATIVE).to_ne_bytes();
        let six = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        datagram.extend(message(RTM_NEWADDR, &address, &[(IFA_ADDRESS, &six), (IFA_FLAGS, &flags)]));
        let route = [INET, 0, 0, 0, RT_TABLE_MAIN, 3, 0, RTN_UNICAST, 0, 0, 0, 0];
        let three = 3_u32.to_ne_bytes();
        let metric = 100_u32.to_ne_bytes();
        let attributes: [(u16, &[u8]); 3] =
            [(RTA_GATEWAY, &[192, 0, 2, 1]), (RTA_OIF, &three), (RTA_PRIORITY, &metric)];
        datagram.extend(message(RTM_NEWROUTE, &route, &attributes));
        let mut snapshot = Snapshot::default();
        assert_eq!(parse(&datagram, 7, &mut snapshot), Ok(false));
        let em0 = Interface { index: 3, name: "em0".into(), up: true, running: true, loopback: false };
        assert_eq!(snapshot.interfaces, [em0]);
        let address = Address::new("2001:db8::9".parse().unwrap(), 64, 3);
        assert_eq!(snapshot.addresses, [Address { temporary: true, tentative: true, ..address }]);
        let gateway = Gateway { interface: 3, address: [192, 0, 2, 1].into(), rank: 100 };
        assert_eq!(snapshot.gateways, [gateway]);
        assert_eq!(parse(&message(NLMSG_DONE, &[0; 4], &[]), 7, &mut snapshot), Ok(true));
        assert_eq!(parse(&message(NLMSG_ERROR, &(-13_i32).to_ne_bytes(), &[]), 7, &mut snapshot), Err(13));
        assert_eq!(parse(&message(NLMSG_DONE, &[0; 4], &[]), 8, &mut snapshot), Ok(false), "somebody else's");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_u16..30) {
            let mut snapshot = Snapshot::default();
            let _ = parse(&bytes, 7, &mut snapshot);
            let _ = parse(&message(kind, &bytes, &[]), 7, &mut snapshot);
        }
    }
}
