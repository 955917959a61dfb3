//! Questions to the kernel's routing socket: which interfaces there are, on what device and upon which other, what XDP
//! program one carries, which carries an address, which leads to one, and whose Ethernet addresses are known. sysfs
//! cannot answer in a network namespace it was not mounted in.
//!
//! Source: rtnetlink(7), linux/if_link.h (IFLA_XDP), linux/if_addr.h; Linux 6.12.

use std::{io, net::IpAddr};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink};

use rustix::io::Errno;

use super::error::{Error, Result};
use crate::config::XdpMode;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_PARENT_DEV_NAME: u16 = 56;
const IFLA_PARENT_DEV_BUS_NAME: u16 = 57;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const XDP_ATTACHED_SKB: u8 = 2;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VLAN_PROTOCOL: u16 = 5;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// Reachable, stale, delayed, probed, without ARP, permanent: what a packet may be sent to.
const NUD_VALID: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTN_LOCAL: u8 = 2;
/// Set on nested attributes.
const TYPE_MASK: u16 = 0x3fff;
const HEADER_BYTES: usize = 16;

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct XdpOnInterface {
    pub(super) mode: XdpMode,
    pub(super) program_id: u32,
}

/// An interface of this thread's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// Bus and name of the device behind it, such as `pci` and `0000:00:02.0`; `None`: nothing but software.
    /// Told since Linux 5.14.
    pub(super) device: Option<(String, String)>,
}

/// Every interface.
pub(super) fn links() -> Result<Vec<Link>> {
    let mut links = Vec::new();
    ask(RTM_GETLINK, NLM_F_DUMP, &[0; 16], &mut |kind, message| {
        if kind == RTM_NEWLINK {
            links.extend(link_of(message));
        }
    })
    .map_err(|source| Error::Syscall { call: "RTM_GETLINK".to_owned(), source })?;
    Ok(links)
}

fn link_of(message: &[u8]) -> Option<Link> {
    let index = u32::from_ne_bytes(*message.get(4..8)?.first_chunk()?);
    let attributes = message.get(16..)?;
    let device = text(attributes, IFLA_PARENT_DEV_BUS_NAME).zip(text(attributes, IFLA_PARENT_DEV_NAME));
    Some(Link { index, name: text(attributes, IFLA_IFNAME)?, device })
}

/// An interface, and what it is upon or part of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mtu: u32,
    pub(super) address: Option<[u8; 6]>,
    /// Interface beneath, of this network namespace.
    pub(super) lower: Option<u32>,
    /// Type and number, where it is a VLAN device.
    pub(super) vlan: Option<(u16, u16)>,
    /// The bond whose port it is.
    pub(super) bond: Option<u32>,
}

/// Every interface, and what it is upon or part of.
pub(super) fn devices() -> Result<Vec<Device>> {
    let mut devices = Vec::new();
    ask(RTM_GETLINK, NLM_F_DUMP, &[0; 16], &mut |kind, message| {
        if kind == RTM_NEWLINK {
            devices.extend(device_of(message));
        }
    })
    .map_err(|source| Error::Syscall { call: "RTM_GETLINK".to_owned(), source })?;
    Ok(devices)
}

fn device_of(message: &[u8]) -> Option<Device> {
    let index = u32::from_ne_bytes(*message.get(4..8)?.first_chunk()?);
    let attributes = message.get(16..)?;
    let number = |kind| Some(u32::from_ne_bytes(*attribute(attributes, kind)?.first_chunk()?));
    let info = attribute(attributes, IFLA_LINKINFO).unwrap_or_default();
    let is = |kind, name: &[u8]| {
        attribute(info, kind).is_some_and(|found| found.strip_suffix(&[0]).unwrap_or(found) == name)
    };
    let data = attribute(info, IFLA_INFO_DATA).unwrap_or_default();
    let short = |kind| attribute(data, kind)?.first_chunk::<2>().copied();
    let vlan =
        || Some((u16::from_be_bytes(short(IFLA_VLAN_PROTOCOL)?), u16::from_ne_bytes(short(IFLA_VLAN_ID)?)));
    Some(Device {
        index,
        name: text(attributes, IFLA_IFNAME)?,
        mtu: number(IFLA_MTU)?,
        address: attribute(attributes, IFLA_ADDRESS).and_then(|bytes| bytes.try_into().ok()),
        // An index of another namespace means another interface here.
        lower: number(IFLA_LINK).filter(|_| attribute(attributes, IFLA_LINK_NETNSID).is_none()),
        vlan: is(IFLA_INFO_KIND, b"vlan").then(vlan).flatten(),
        bond: number(IFLA_MASTER).filter(|_| is(IFLA_INFO_SLAVE_KIND, b"bond")),
    })
}

/// Whose Ethernet addresses are known: interface, address, Ethernet address.
pub(super) fn neighbours() -> Result<Vec<(u32, IpAddr, [u8; 6])>> {
    let mut neighbours = Vec::new();
    ask(RTM_GETNEIGH, NLM_F_DUMP, &[0; 12], &mut |kind, message| {
        if kind == RTM_NEWNEIGH {
            neighbours.extend(neighbour_of(message));
        }
    })
    .map_err(|source| Error::Syscall { call: "RTM_GETNEIGH".to_owned(), source })?;
    Ok(neighbours)
}

fn neighbour_of(message: &[u8]) -> Option<(u32, IpAddr, [u8; 6])> {
    let index = u32::from_ne_bytes(*message.get(4..8)?.first_chunk()?);
    let state = u16::from_ne_bytes(*message.get(8..10)?.first_chunk()?);
    let attributes = message.get(12..)?;
    let address = ip_of(attribute(attributes, NDA_DST)?)?;
    let mac = attribute(attributes, NDA_LLADDR)?.try_into().ok()?;
    (state & NUD_VALID != 0).then_some((index, address, mac))
}

/// Index of an interface of this thread's network namespace.
pub(super) fn interface_index(name: &str) -> Result<u32> {
    let failed = |source: io::Error| Error::Syscall { call: format!("look up interface {name}"), source };
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)
        .map_err(|errno| failed(errno.into()))?;
    rustix::net::netdevice::name_to_index(&socket, name).map_err(|errno| failed(errno.into()))
}

/// The XDP program that an interface carries.
pub(super) fn xdp_on(index: u32) -> Result<Option<XdpOnInterface>> {
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut found = None;
    ask(RTM_GETLINK, 0, &body, &mut |kind, message| {
        if kind == RTM_NEWLINK {
            found = xdp_of_link(message);
        }
    })
    .map_err(|source| Error::Syscall { call: format!("RTM_GETLINK of interface {index}"), source })?;
    Ok(found)
}

fn xdp_of_link(message: &[u8]) -> Option<XdpOnInterface> {
    let xdp = attribute(message.get(16..)?, IFLA_XDP)?;
    let attached = *attribute(xdp, IFLA_XDP_ATTACHED)?.first()?;
    let id = attribute(xdp, IFLA_XDP_PROG_ID)?.first_chunk::<4>()?;
    let mode = if attached == XDP_ATTACHED_SKB { XdpMode::Generic } else { XdpMode::Native };
    (attached != 0).then_some(XdpOnInterface { mode, program_id: u32::from_ne_bytes(*id) })
}

/// Every address, with the index of its interface.
pub(super) fn addresses() -> Result<Vec<(u32, IpAddr)>> {
    let mut addresses = Vec::new();
    ask(RTM_GETADDR, NLM_F_DUMP, &[0; 8], &mut |kind, message| {
        if kind == RTM_NEWADDR {
            addresses.extend(address_of(message));
        }
    })
    .map_err(|source| Error::Syscall { call: "RTM_GETADDR".to_owned(), source })?;
    Ok(addresses)
}

fn address_of(message: &[u8]) -> Option<(u32, IpAddr)> {
    let index = u32::from_ne_bytes(*message.get(4..8)?.first_chunk()?);
    let attributes = message.get(8..)?;
    // IFA_ADDRESS is the peer's on a point-to-point link; IFA_LOCAL is not there for IPv6.
    let bytes = attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS))?;
    ip_of(bytes).map(|address| (index, address))
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || bytes.try_into().map(|octets: [u8; 4]| IpAddr::from(octets));
    let v6 = || bytes.try_into().map(|octets: [u8; 16]| IpAddr::from(octets));
    v4().or_else(|_| v6()).ok()
}

fn text(attributes: &[u8], kind: u16) -> Option<String> {
    let bytes = attribute(attributes, kind)?;
    std::ffi::CStr::from_bytes_until_nul(bytes).ok()?.to_str().ok().map(str::to_owned)
}

/// Index of the interface by which an address is reached; `None`: by none.
pub(super) fn route_to(address: IpAddr) -> Result<Option<u32>> {
    Ok(route(address)?.map(|(_, interface)| interface))
}

/// Whether packets for an address are for this host.
pub(super) fn is_local(address: IpAddr) -> Result<bool> {
    Ok(route(address)?.is_some_and(|(kind, _)| kind == RTN_LOCAL))
}

/// Kind and way out of the route that an address has, if it has one.
fn route(address: IpAddr) -> Result<Option<(u8, u32)>> {
    let (family, octets) = match address {
        IpAddr::V4(v4) => (AddressFamily::INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AddressFamily::INET6, v6.octets().to_vec()),
    };
    // struct rtmsg: family, length of the destination, then all zero.
    let mut body = vec![0; 12];
    (body[0], body[1]) = (family.as_raw() as u8, 8 * octets.len() as u8);
    body.extend_from_slice(&(4 + octets.len() as u16).to_ne_bytes());
    body.extend_from_slice(&RTA_DST.to_ne_bytes());
    body.extend_from_slice(&octets);
    let mut found = None;
    let asked = ask(RTM_GETROUTE, 0, &body, &mut |kind, message| {
        if kind == RTM_NEWROUTE {
            found = route_of(message);
        }
    });
    let Err(source) = asked else { return Ok(found) };
    match Errno::from_io_error(&source) {
        Some(Errno::NETUNREACH | Errno::HOSTUNREACH) => Ok(None),
        _ => Err(Error::Syscall { call: format!("RTM_GETROUTE of {address}"), source }),
    }
}

fn route_of(message: &[u8]) -> Option<(u8, u32)> {
    let interface = attribute(message.get(12..)?, RTA_OIF)?.first_chunk()?;
    Some((*message.get(7)?, u32::from_ne_bytes(*interface)))
}

/// Payload of the first attribute of a type.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & TYPE_MASK;
        let payload = bytes.get(4..len)?;
        if kind == wanted {
            return Some(payload);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
}

/// Sends one request and hands every message of the answer to `each`, as (type, body).
fn ask(kind: u16, flags: u16, body: &[u8], each: &mut dyn FnMut(u16, &[u8])) -> io::Result<()> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // NETLINK_ROUTE is protocol 0.
        None,
    )?;
    let mut request = Vec::with_capacity(HEADER_BYTES + body.len());
    request.extend_from_slice(&((HEADER_BYTES + body.len()) as u32).to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    request.extend_from_slice(body);
    rustix::net::sendto(&socket, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        let (len, _) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        if read_messages(&buffer[..len], each)? || flags & NLM_F_DUMP == 0 {
            return Ok(());
        }
    }
}

/// True when the answer is complete.
fn read_messages(mut bytes: &[u8], each: &mut dyn FnMut(u16, &[u8])) -> io::Result<bool> {
    while let Some(len) = bytes.first_chunk::<4>() {
        let len = u32::from_ne_bytes(*len) as usize;
        let message = bytes.get(..len).ok_or(io::ErrorKind::InvalidData)?;
        let kind = message.get(4..).and_then(|rest| rest.first_chunk::<2>());
        let body = message.get(HEADER_BYTES..).ok_or(io::ErrorKind::InvalidData)?;
        match kind.map_or(0, |kind| u16::from_ne_bytes(*kind)) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = body.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
                return if code == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(-code)) };
            }
            kind => each(kind, body),
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_with_its_address_and_no_program() {
        let index = interface_index("lo").unwrap();
        assert!(addresses().unwrap().contains(&(index, IpAddr::from([127, 0, 0, 1]))));
        assert!(interface_index("no-such-one").is_err());
        assert!(xdp_on(u32::MAX >> 1).is_err());
        xdp_on(index).unwrap();
    }

    #[test]
    fn loopback_leads_to_its_address() {
        let index = interface_index("lo").unwrap();
        let local = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(route_to(local).unwrap(), Some(index));
        assert!(is_local(local).unwrap());
        assert!(!is_local(IpAddr::from([192, 0, 2, 77])).unwrap());
    }

    #[test]
    fn links_have_a_name_and_loopback_no_device() {
        let index = interface_index("lo").unwrap();
        let links = links().unwrap();
        let lo = links.iter().find(|link| link.index == index).unwrap();
        assert_eq!(lo, &Link { index, name: "lo".to_owned(), device: None });
    }

    #[test]
    fn a_link_message_names_its_device() {
        let mut message = vec![0; 16];
        message[4] = 7;
        for (kind, text) in [(3u8, "eth0\0\0\0\0"), (57, "pci\0"), (56, "0:2\0")] {
            let len = if kind == 3 { 9 } else { 8 };
            message.extend_from_slice(&[len, 0, kind, 0]);
            message.extend_from_slice(text.as_bytes());
        }
        let device = Some(("pci".to_owned(), "0:2".to_owned()));
        assert_eq!(link_of(&message), Some(Link { index: 7, name: "eth0".to_owned(), device }));
        assert_eq!(link_of(&message[..20]), None);
    }

    fn attribute_of(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u16 + 4).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_link_message_says_what_the_device_is() {
        let mut head = vec![0; 16];
        head[4] = 9;
        let data = [
            attribute_of(IFLA_VLAN_ID, &7u16.to_ne_bytes()),
            attribute_of(IFLA_VLAN_PROTOCOL, &[0x88, 0xa8]),
        ];
        let info = [attribute_of(IFLA_INFO_KIND, b"vlan\0"), attribute_of(IFLA_INFO_DATA, &data.concat())];
        let common = [
            attribute_of(IFLA_IFNAME, b"eth0.7\0"),
            attribute_of(IFLA_MTU, &1400u32.to_ne_bytes()),
            attribute_of(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1]),
            attribute_of(IFLA_LINK, &3u32.to_ne_bytes()),
        ];
        let message =
            [head.clone(), common.concat(), attribute_of(IFLA_LINKINFO | 0x8000, &info.concat())].concat();
        let vlan = Device {
            index: 9,
            name: "eth0.7".to_owned(),
            mtu: 1400,
            address: Some([2, 0, 0, 0, 0, 1]),
            lower: Some(3),
            vlan: Some((0x88a8, 7)),
            bond: None,
        };
        assert_eq!(device_of(&message), Some(vlan.clone()));
        let elsewhere = [message, attribute_of(IFLA_LINK_NETNSID, &[0; 4])].concat();
        assert_eq!(device_of(&elsewhere), Some(Device { lower: None, ..vlan.clone() }));
        let info = attribute_of(IFLA_LINKINFO, &attribute_of(IFLA_INFO_SLAVE_KIND, b"bond\0"));
        let port = [head, common.concat(), attribute_of(IFLA_MASTER, &4u32.to_ne_bytes()), info].concat();
        assert_eq!(device_of(&port), Some(Device { vlan: None, bond: Some(4), ..vlan }));
        assert!(
            (0..port.len()).all(|len| device_of(&port[..len]).is_none_or(|device| device.bond.is_none()))
        );
    }

    #[test]
    fn a_neighbour_message() {
        let mut message = vec![0; 12];
        (message[4], message[8]) = (9, 2);
        message.extend(attribute_of(NDA_DST, &[10, 0, 0, 1]));
        message.extend(attribute_of(NDA_LLADDR, &[2, 0, 0, 0, 0, 1]));
        assert_eq!(neighbour_of(&message), Some((9, [10, 0, 0, 1].into(), [2, 0, 0, 0, 0, 1])));
        message[8] = 0x20;
        assert_eq!(neighbour_of(&message), None, "it failed");
        neighbours().unwrap();
        assert!(devices().unwrap().iter().any(|device| device.name == "lo" && device.mtu > 0));
    }

    #[test]
    fn cut_messages_give_nothing() {
        let mut link = vec![0; 16];
        link.extend_from_slice(&[
            28, 0, 43, 0x80, 5, 0, 2, 0, 1, 0, 0, 0, 8, 0, 4, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ]);
        let native = XdpOnInterface { mode: XdpMode::Native, program_id: 7 };
        assert_eq!(xdp_of_link(&link), Some(native));
        assert!((0..link.len()).all(|len| xdp_of_link(&link[..len]).is_none()));
    }
}
