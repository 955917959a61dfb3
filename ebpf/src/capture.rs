//! What a capture takes of a packet, and which packets it takes.
//!
//! Headers only, unless told otherwise: what people send is none of an operator's business, and even a short snap
//! length would show all of a DNS question.

use lb_abi::{
    capture::{ANY, CaptureFilter},
    trace::{STEP_BACKEND, STEP_VIP_FOUND, Trace},
};

use crate::{
    address::Address,
    numbers::{Family, protocol},
    packet::Packet,
    parse::{Ip, Link, Shape},
};

/// A packet before its walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Bytes from the frame's first to the end of the last header that can be told, at most those of the frame.
    pub headers: usize,
    /// What it says of itself, if it is IP and its header can be read.
    pub ip: Option<Ip>,
}

impl Sight {
    /// Looks at a frame.
    #[inline(always)]
    pub fn of<P: Packet>(packet: &P) -> Self {
        let len = packet.len();
        let Ok(link) = Link::parse(packet) else { return Self { headers: len, ip: None } };
        let Some(family) = link.family() else { return Self { headers: link.len, ip: None } };
        let Ok(ip) = Ip::parse(packet, link.len, family) else {
            return Self { headers: shorter(link.len + family.header_len(), len), ip: None };
        };
        Self { headers: shorter(link.len + headers_of(packet, &ip), len), ip: Some(ip) }
    }
}

#[inline(always)]
const fn shorter(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}

/// Bytes of the IP header and, where it can be found, the transport header.
#[inline(always)]
fn headers_of<P: Packet>(packet: &P, ip: &Ip) -> usize {
    let plain = ip.family.header_len();
    match ip.shape {
        Shape::Plain => {}
        Shape::Fragment => return plain,
        Shape::Options => {
            let words = match (ip.family, packet.load::<1>(ip.at)) {
                (Family::V4, Some([first])) => first.to_ne_bytes()[0] & 0x0f,
                _ => 0,
            };
            return longer(words as usize * 4, plain);
        }
    }
    let transport = if ip.protocol == protocol::TCP {
        match packet.load::<1>(ip.at + plain + 12) {
            Some([word]) => longer((word.to_ne_bytes()[0] >> 4) as usize * 4, 20),
            None => 20,
        }
    } else if ip.protocol == protocol::UDP || ip.protocol == ip.family.icmp() {
        8
    } else {
        0
    };
    plain + transport
}

#[inline(always)]
const fn longer(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// Whether the filter may want a packet that came in by an interface, as far as the packet itself says.
#[inline(always)]
pub fn may_want(filter: &CaptureFilter, ingress: u32, sight: &Sight) -> bool {
    if filter.ingress != 0 && filter.ingress != ingress {
        return false;
    }
    match &sight.ip {
        Some(ip) => {
            (filter.protocol == ANY || filter.protocol == ip.protocol as u32)
                && covers(filter.source, filter.source_mask, ip.source)
                && covers(filter.destination, filter.destination_mask, ip.destination)
        }
        None => filter.protocol == ANY && filter.source_mask == [0; 16] && filter.destination_mask == [0; 16],
    }
}

#[inline(always)]
fn covers(prefix: [u8; 16], mask: [u8; 16], address: Address) -> bool {
    let [prefix, mask, address] = [prefix, mask, address.bytes()].map(u128::from_ne_bytes);
    address & mask == prefix
}

/// Whether the filter wants a packet of which all is known.
#[inline(always)]
pub fn wants(filter: &CaptureFilter, trace: &Trace) -> bool {
    let has = |step| trace.steps & step != 0;
    filter.reasons >> (trace.reason & 63) & 1 != 0
        && (filter.vip == ANY || (has(STEP_VIP_FOUND) && filter.vip == trace.vip.vip))
        && (filter.backend == 0 || (has(STEP_BACKEND) && filter.backend == trace.backend))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use lb_abi::reason::Reason;

    use super::*;
    use crate::packet::Frame;

    fn frame(ethertype: u16, rest: &[u8]) -> Vec<u8> {
        [&[2; 12][..], &ethertype.to_be_bytes(), rest].concat()
    }

    fn v4(first: u8, fragment: u8, protocol: u8, rest: &[u8]) -> Vec<u8> {
        let length = 20 + rest.len() as u8;
        let header =
            [first, 0, 0, length, 0, 0, fragment, 0, 64, protocol, 0, 0, 198, 51, 100, 7, 192, 0, 2, 1];
        frame(0x0800, &[&header[..], rest].concat())
    }

    fn sight(bytes: &[u8]) -> Sight {
        let mut bytes = bytes.to_vec();
        Sight::of(&Frame::new(&mut bytes, 0, 1))
    }

    #[test]
    fn headers_end_before_the_payload() {
        let mut tcp = [0; 40];
        tcp[12] = 0x80;
        let mut tagged = v4(0x45, 0, 17, &[0; 30]);
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        let mut v6 = std::vec![0x60, 0, 0, 0, 0, 30, 58, 64];
        v6.extend([0x20; 32]);
        v6.extend([0; 30]);
        for (name, bytes, headers) in [
            ("udp", v4(0x45, 0, 17, &[0; 30]), 42),
            ("tagged udp", tagged, 46),
            ("tcp with options", v4(0x45, 0, 6, &tcp), 14 + 20 + 32),
            ("tcp with an impossible offset", v4(0x45, 0, 6, &[0; 40]), 54),
            ("tcp cut short", v4(0x45, 0, 6, &[0; 7]), 41),
            ("a later fragment", v4(0x45, 1, 17, &[0; 30]), 34),
            ("ip options", v4(0x48, 0, 17, &[0; 30]), 14 + 32),
            ("unknown transport", v4(0x45, 0, 132, &[0; 30]), 34),
            ("icmp", v4(0x45, 0, 1, &[0; 30]), 42),
            ("icmpv6", frame(0x86dd, &v6), 14 + 40 + 8),
            ("arp", frame(0x0806, &[0; 28]), 14),
            ("bad ip", frame(0x0800, &[0; 50]), 34),
            ("bad ip, short", frame(0x0800, &[0; 5]), 19),
            ("half a link", std::vec![0; 9], 9),
        ] {
            assert_eq!(sight(&bytes).headers, headers, "{name}");
        }
    }

    fn prefix(text: &str, bits: u32) -> ([u8; 16], [u8; 16]) {
        let address = text.parse::<core::net::Ipv4Addr>().unwrap().to_ipv6_mapped().octets();
        (address, (u128::MAX << (32 - bits)).to_be_bytes())
    }

    #[test]
    fn a_filter_wants_what_meets_all_of_it() {
        let packet = sight(&v4(0x45, 0, 17, &[0; 30]));
        let arp = sight(&frame(0x0806, &[0; 28]));
        let all = CaptureFilter::ALL;
        assert!(may_want(&all, 1, &packet) && may_want(&all, 1, &arp));
        let udp = CaptureFilter { protocol: 17, ..all };
        let tcp = CaptureFilter { protocol: 6, ..all };
        assert!(may_want(&udp, 1, &packet) && !may_want(&tcp, 1, &packet) && !may_want(&udp, 1, &arp));
        let here = CaptureFilter { ingress: 1, ..all };
        assert!(may_want(&here, 1, &packet) && !may_want(&here, 2, &packet));
        for (text, bits, source, destination) in
            [("198.51.100.0", 24, true, false), ("192.0.2.1", 32, false, true), ("0.0.0.0", 1, false, false)]
        {
            let (address, mask) = prefix(text, bits);
            let by_source = CaptureFilter { source: address, source_mask: mask, ..all };
            let by_destination = CaptureFilter { destination: address, destination_mask: mask, ..all };
            assert_eq!(may_want(&by_source, 1, &packet), source, "{text}");
            assert_eq!(may_want(&by_destination, 1, &packet), destination, "{text}");
            assert!(!may_want(&by_source, 1, &arp));
        }
    }

    #[test]
    fn what_is_known_at_the_end_is_filtered_at_the_end() {
        let mut trace = Trace { reason: Reason::Mtu as u32, backend: 3, ..Trace::default() };
        trace.vip.vip = 2;
        let all = CaptureFilter::ALL;
        let one = |reason: Reason| CaptureFilter { reasons: 1 << reason as u32, ..all };
        assert!(wants(&all, &trace) && wants(&one(Reason::Mtu), &trace) && !wants(&one(Reason::Ttl), &trace));
        let (vip, backend) = (CaptureFilter { vip: 2, ..all }, CaptureFilter { backend: 3, ..all });
        assert!(!wants(&vip, &trace) && !wants(&backend, &trace), "neither was met");
        trace.steps = STEP_VIP_FOUND | STEP_BACKEND;
        assert!(wants(&vip, &trace) && wants(&backend, &trace));
        assert!(!wants(&CaptureFilter { vip: 0, ..all }, &trace));
    }
}
