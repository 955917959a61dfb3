//! From bytes to what the packet path wants to know: link, IP and transport headers.
//!
//! Nothing here knows a VIP. IP header checksums are not verified: the drivers or the backend's kernel do, and
//! a wrong one stays wrong, because changes are folded in incrementally.

use lb_abi::{be::Be16, reason::Reason};

use crate::{
    address::Address,
    numbers::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Family, IPV4_LEN, IPV6_LEN, TAG_LEN, protocol},
    packet::Packet,
};

const ETHERTYPE_TAG: u16 = 0x8100;
const ETHERTYPE_SERVICE_TAG: u16 = 0x88a8;

/// An Ethernet header with up to two tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Sent to a broadcast or multicast address (IEEE 802, group bit).
    pub to_group: bool,
    /// The tags, outermost first, each four bytes as on the wire; the unused rest is zero.
    pub tags: [u32; 2],
    /// Bytes: 14, 18 or 22.
    pub len: usize,
    /// What follows; a third tag counts as what follows.
    pub ethertype: u16,
}

impl Link {
    /// Reads the header. Err: the frame ends inside it.
    #[inline(always)]
    pub fn parse<P: Packet>(packet: &P) -> Result<Self, Reason> {
        let [first, _, _, _, _, _, ethertype] = packet.load(0).ok_or(Reason::MalformedEthernet)?;
        let to_group = u16::from_be(first) & 0x0100 != 0;
        let ethertype = u16::from_be(ethertype);
        let mut link = Self { to_group, tags: [0; 2], len: ETHERNET_LEN, ethertype };
        if is_tag(link.ethertype) {
            link.tags[0] = load_tag(packet, 12).ok_or(Reason::MalformedEthernet)?;
            link.ethertype = load_u16(packet, 16).ok_or(Reason::MalformedEthernet)?;
            link.len = ETHERNET_LEN + TAG_LEN;
            if is_tag(link.ethertype) {
                link.tags[1] = load_tag(packet, 16).ok_or(Reason::MalformedEthernet)?;
                link.ethertype = load_u16(packet, 20).ok_or(Reason::MalformedEthernet)?;
                link.len = ETHERNET_LEN + 2 * TAG_LEN;
            }
        }
        Ok(link)
    }

    /// The IP version that follows.
    #[inline(always)]
    pub const fn family(&self) -> Option<Family> {
        match self.ethertype {
            ETHERTYPE_IPV4 => Some(Family::V4),
            ETHERTYPE_IPV6 => Some(Family::V6),
            _ => None,
        }
    }

    /// Destination, then source address, as they stand in the frame.
    #[inline(always)]
    pub fn addresses<P: Packet>(packet: &P) -> Result<[u16; 6], Reason> {
        packet.load(0).ok_or(Reason::MalformedEthernet)
    }
}

#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_TAG || ethertype == ETHERTYPE_SERVICE_TAG
}

#[inline(always)]
fn load_tag<P: Packet>(packet: &P, at: usize) -> Option<u32> {
    let [kind, control] = packet.load(at)?;
    let ([a, b], [c, d]) = (kind.to_ne_bytes(), control.to_ne_bytes());
    Some(u32::from_ne_bytes([a, b, c, d]))
}

/// What stands between the IP header and the transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nothing.
    Plain,
    /// IPv4 options or an IPv6 extension header.
    Options,
    /// It is a fragment.
    Fragment,
}

impl Shape {
    /// Of an IPv6 packet, by its header's next header.
    #[inline(always)]
    pub const fn of_next_header(protocol: u8) -> Self {
        match protocol {
            44 => Self::Fragment,
            // Hop-by-hop, routing, authentication, destination options, mobility, HIP, shim6.
            0 | 43 | 51 | 60 | 135 | 139 | 140 => Self::Options,
            _ => Self::Plain,
        }
    }
}

/// What we need of an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Version.
    pub family: Family,
    /// Offset of the header in the frame.
    pub at: usize,
    /// Source address; IPv4 as `::ffff:a.b.c.d`.
    pub source: Address,
    /// Destination address, the same.
    pub destination: Address,
    /// Type of service or traffic class: DSCP and ECN.
    pub class: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Transport protocol, or the first extension header's number.
    pub protocol: u8,
    /// Bytes from this header to the end of the packet; at least the plain header, at most what is in the
    /// frame.
    pub length: u16,
    /// What comes next.
    pub shape: Shape,
}

impl Ip {
    /// Reads the header of a family at offset `at`.
    #[inline(always)]
    pub fn parse<P: Packet>(packet: &P, at: usize, family: Family) -> Result<Self, Reason> {
        match family {
            Family::V4 => Self::parse_v4(packet, at),
            Family::V6 => Self::parse_v6(packet, at),
        }
    }

    #[inline(always)]
    fn parse_v4<P: Packet>(packet: &P, at: usize) -> Result<Self, Reason> {
        let [_, _, _, source, destination] = packet.load_doubles(at).ok_or(Reason::MalformedIp)?;
        let [first, length, _, fragment, ttl] = packet.load(at).ok_or(Reason::MalformedIp)?;
        let [version, class] = first.to_ne_bytes();
        let [ttl, protocol] = ttl.to_ne_bytes();
        let length = u16::from_be(length);
        let header_len = (version & 0x0f) as usize * 4;
        if version >> 4 != 4
            || header_len < IPV4_LEN
            || (length as usize) < header_len
            || at + length as usize > packet.len_of(at + length as usize)
        {
            return Err(Reason::MalformedIp);
        }
        // More fragments, or an offset (RFC 791, 3.1).
        let shape = if u16::from_be(fragment) & 0x3fff != 0 {
            Shape::Fragment
        } else if header_len > IPV4_LEN {
            Shape::Options
        } else {
            Shape::Plain
        };
        Ok(Self {
            family: Family::V4,
            at,
            source: Address::of_v4(source),
            destination: Address::of_v4(destination),
            class,
            ttl,
            protocol,
            length,
            shape,
        })
    }

    #[inline(always)]
    fn parse_v6<P: Packet>(packet: &P, at: usize) -> Result<Self, Reason> {
        let [first, _, payload, next] = packet.load(at).ok_or(Reason::MalformedIp)?;
        let [_, s0, s1, d0, d1] = packet.load_quads(at).ok_or(Reason::MalformedIp)?;
        let (source, destination) = (Address::of_halves(s0, s1), Address::of_halves(d0, d1));
        let first = u16::from_be(first);
        let [protocol, ttl] = next.to_ne_bytes();
        let length = u16::from_be(payload) as usize + IPV6_LEN;
        // Jumbograms (RFC 2675) do not fit the length either: no XDP frame is that long.
        if first >> 12 != 6 || length > u16::MAX as usize || at + length > packet.len_of(at + length) {
            return Err(Reason::MalformedIp);
        }
        // Mapped addresses never belong on the wire (RFC 6890, 2.2.3), and would alias IPv4 keys.
        if matches!(source.family(), Family::V4) || matches!(destination.family(), Family::V4) {
            return Err(Reason::MalformedIp);
        }
        let shape = Shape::of_next_header(protocol);
        Ok(Self {
            family: Family::V6,
            at,
            source,
            destination,
            class: (first >> 4) as u8,
            ttl,
            protocol,
            length: length as u16,
            shape,
        })
    }
}

/// Source and destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Source.
    pub source: Be16,
    /// Destination.
    pub destination: Be16,
}

/// What we need of a transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp(Ports, TcpFlags),
    /// UDP.
    Udp(Ports),
    /// An ICMP or ICMPv6 echo request.
    EchoRequest,
    /// An ICMP or ICMPv6 error, which quotes the packet that it is about.
    IcmpError,
    /// Anything else, other ICMP included.
    Other,
}

impl Transport {
    /// Reads the header that follows a plain IP header; behind any other there is none to read.
    #[inline(always)]
    pub fn parse<P: Packet>(packet: &P, ip: &Ip) -> Result<Self, Reason> {
        match ip.shape {
            Shape::Plain => {}
            Shape::Fragment => return Err(Reason::Fragment),
            Shape::Options => return Err(Reason::IpOptions),
        }
        let at = ip.at + ip.family.header_len();
        let length = ip.length as usize - ip.family.header_len();
        if ip.protocol == protocol::TCP {
            let [source, destination, _, _, _, _, last] = packet.load(at).ok_or(Reason::MalformedTcp)?;
            let last = u16::from_be(last);
            let header_len = (last >> 12) as usize * 4;
            if header_len < 20 || header_len > length {
                return Err(Reason::MalformedTcp);
            }
            Ok(Self::Tcp(Ports::new(source, destination), TcpFlags(last as u8)))
        } else if ip.protocol == protocol::UDP {
            let [source, destination, claimed, _] = packet.load(at).ok_or(Reason::MalformedUdp)?;
            let claimed = u16::from_be(claimed) as usize;
            if claimed < 8 || claimed > length {
                return Err(Reason::MalformedUdp);
            }
            Ok(Self::Udp(Ports::new(source, destination)))
        } else if ip.protocol == ip.family.icmp() && length >= 8 {
            let [kind] = packet.load(at).ok_or(Reason::MalformedIp)?;
            Ok(match (ip.family, kind.to_ne_bytes()) {
                (Family::V4, [8, 0]) | (Family::V6, [128, 0]) => Self::EchoRequest,
                // Unreachable (fragmentation needed, too), time exceeded, parameter problem; too big.
                (Family::V4, [3 | 11 | 12, _]) | (Family::V6, [1..=4, _]) => Self::IcmpError,
                _ => Self::Other,
            })
        } else {
            Ok(Self::Other)
        }
    }
}

impl Ports {
    #[inline(always)]
    const fn new(source: u16, destination: u16) -> Self {
        Self { source: Be16(source), destination: Be16(destination) }
    }
}

/// The flags byte of a TCP header (RFC 9293, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// ACK.
    pub const ACK: u8 = 0x10;
    /// URG.
    pub const URG: u8 = 0x20;

    /// Whether a stack that means it ever sends this set; PSH, ECE and CWR are not looked at.
    ///
    /// Source: `tcp_valid_flags`, net/netfilter/nf_conntrack_proto_tcp.c, Linux v6.18.
    #[inline(always)]
    pub const fn possible(self) -> bool {
        const SETS: [u8; 9] = [
            TcpFlags::SYN,
            TcpFlags::SYN | TcpFlags::URG,
            TcpFlags::SYN | TcpFlags::ACK,
            TcpFlags::RST,
            TcpFlags::RST | TcpFlags::ACK,
            TcpFlags::FIN | TcpFlags::ACK,
            TcpFlags::FIN | TcpFlags::ACK | TcpFlags::URG,
            TcpFlags::ACK,
            TcpFlags::ACK | TcpFlags::URG,
        ];
        // One bit per set, so that a packet costs a shift and no table in memory.
        const POSSIBLE: u32 = {
            let mut bits = 0;
            let mut at = 0;
            while at < SETS.len() {
                bits |= 1 << TcpFlags(SETS[at]).index();
                at += 1;
            }
            bits
        };
        POSSIBLE >> self.index() & 1 != 0
    }

    /// SYN, and none of ACK, RST and FIN: it opens a connection.
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST | Self::FIN) == Self::SYN
    }

    /// URG ACK RST SYN FIN as a number below 32.
    #[inline(always)]
    const fn index(self) -> u32 {
        ((self.0 & 0x07) | (self.0 >> 1 & 0x18)) as u32
    }
}

#[inline(always)]
fn load_u16<P: Packet>(packet: &P, at: usize) -> Option<u16> {
    packet.load(at).map(|[word]| u16::from_be(word))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::packet::Frame;

    #[test]
    fn impossible_flag_sets() {
        let impossible = [0x00, 0x03, 0x06, 0x05, 0x01, 0x08, 0x20, 0x3f, 0x29];
        for flags in impossible {
            assert!(!TcpFlags(flags).possible(), "{flags:#x}");
        }
        // SYN with ECE and CWR (RFC 3168), PSH|ACK, FIN|ACK|PSH.
        for flags in [0xc2, 0x18, 0x19, 0x02, 0x12, 0x04, 0x14, 0x10] {
            assert!(TcpFlags(flags).possible(), "{flags:#x}");
        }
    }

    proptest! {
        /// Never panics, and what it says fits the frame.
        #[test]
        fn any_bytes(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..120),
            ethertype in prop::sample::select(Vec::from([0x0800u16, 0x86dd, 0x8100, 0x88a8, 0x0806])),
            version in prop::sample::select(Vec::from([0x45u8, 0x46, 0x60, 0x00])),
        ) {
            if bytes.len() > 14 {
                bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
                bytes[14] = version;
            }
            let len = bytes.len();
            let packet = Frame::new(&mut bytes, 0, 1);
            if let Ok(link) = Link::parse(&packet) {
                prop_assert!(link.len <= len);
                if let Some(family) = link.family()
                    && let Ok(ip) = Ip::parse(&packet, link.len, family)
                {
                    prop_assert!(ip.at + ip.length as usize <= len);
                    prop_assert!(ip.length as usize >= family.header_len());
                    let _ = Transport::parse(&packet, &ip);
                }
            }
        }
    }
}
