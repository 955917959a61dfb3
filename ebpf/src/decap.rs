//! Taking an outer header off, for a backend that has no tunnel device: IP in IP, and GUE variant 1.
//!
//! Which outer destinations are handled:
//! - maps that nobody wrote (`META` is zero): every one, so that a backend that runs `lb_decap` alone has
//!   nothing to configure;
//! - else only keys of map `VIPS` with the flag `DECAP`: (outer destination, port 0, protocol 4 or 41 as the
//!   inner packet is), or (outer destination, port 6080, protocol 17).
//!
//! What is in UDP at that port and no IP packet (GUE variant 0) is the kernel's. A UDP checksum that is there must
//! agree with the packet inside, as far as its headers say what it sums to; one that is not there is taken over
//! either IP (see [`gue`]).
//!
//! Whoever may send to a handled address may inject packets with any inner address, as with any unauthenticated
//! tunnel, so it should be reachable from the balancers only.

use lb_abi::{
    ABI_VERSION,
    be::Be16,
    reason::Reason,
    vip::{DECAP, VipKey},
};

use crate::{
    checksum, encap,
    env::Env,
    gue,
    numbers::{Family, GUE_PORT, UDP_LEN, protocol},
    packet::Packet,
    parse::{Ip, Link, Shape},
    verdict::{Outcome, Verdict},
};

const ECN: u8 = 0b11;
const CONGESTION: u8 = 0b11;

/// Decides about one packet, takes the outer header off if it is handled, and counts it.
#[inline(always)]
pub fn decap<P: Packet, E: Env>(packet: &mut P, env: &E) -> Verdict {
    let reason = match walk(packet, env) {
        Ok(()) => Reason::Decapsulated,
        Err(reason) => reason,
    };
    env.count(reason);
    Outcome::stopped(reason).verdict
}

#[inline(always)]
fn walk<P: Packet, E: Env>(packet: &mut P, env: &E) -> Result<(), Reason> {
    let any = match env.meta().ok_or(Reason::Abi)?.abi {
        0 => true,
        ABI_VERSION => false,
        _ => return Err(Reason::Abi),
    };
    // What is not plainly a tunnel of ours is the kernel's to judge: a backend's other traffic runs here, too.
    let link = Link::parse(packet).map_err(|_| Reason::NotOurs)?;
    let family = link.family().ok_or(Reason::NotOurs)?;
    let outer = Ip::parse(packet, link.len, family).map_err(|_| Reason::NotOurs)?;
    if !matches!(outer.shape, Shape::Plain) || link.to_group {
        return Err(Reason::NotOurs);
    }
    let after = link.len + family.header_len();
    let (port, inner, len) = match outer.protocol {
        protocol::IPV4 => (0, Family::V4, family.header_len()),
        protocol::IPV6 => (0, Family::V6, family.header_len()),
        protocol::UDP => (GUE_PORT, gue::inside(packet, after)?, family.header_len() + UDP_LEN),
        _ => return Err(Reason::NotOurs),
    };
    let key = VipKey {
        address: outer.destination.bytes(),
        port: Be16::new(port),
        protocol: outer.protocol,
        host_bits: 0,
    };
    let handled = any || env.vip(&key).is_some_and(|entry| entry.flags & DECAP != 0);
    if !handled {
        return Err(Reason::NotOurs);
    }
    let at = link.len + len;
    let [first] = packet.load(at).ok_or(Reason::MalformedIp)?;
    let version = match inner {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    if u16::from_be(first) >> 12 != version || (outer.length as usize) < len + inner.header_len() {
        return Err(Reason::MalformedIp);
    }
    if outer.protocol == protocol::UDP {
        let header = packet.load(after).ok_or(Reason::MalformedUdp)?;
        let inside = Ip::parse(packet, at, inner)?;
        if !gue::agrees(packet, &inside, &outer, header) {
            return Err(Reason::MalformedUdp);
        }
    }
    let addresses = Link::addresses(packet)?;
    carry_congestion(packet, at, inner, first, outer.class)?;
    packet.move_head(len as i32).ok_or(Reason::MalformedIp)?;
    encap::write_link(packet, &addresses, &link.tags, link.len, inner.ethertype()).ok_or(Reason::MalformedIp)
}

/// A mark set on the way stays on the packet; a marked packet that cannot carry it is dropped (RFC 6040, 4.2).
#[inline(always)]
fn carry_congestion<P: Packet>(
    packet: &mut P,
    at: usize,
    inner: Family,
    first: u16,
    outer_class: u8,
) -> Result<(), Reason> {
    if outer_class & ECN != CONGESTION {
        return Ok(());
    }
    // Where the field lies in the header's first word.
    let shift = match inner {
        Family::V4 => 0,
        Family::V6 => 4,
    };
    match (u16::from_be(first) >> shift) as u8 & ECN {
        0 => return Err(Reason::MalformedIp),
        CONGESTION => return Ok(()),
        _ => {}
    }
    let marked = first | ((CONGESTION as u16) << shift).to_be();
    packet.store(at, [marked]).ok_or(Reason::MalformedIp)?;
    if matches!(inner, Family::V4) {
        let [check] = packet.load(at + 10).ok_or(Reason::MalformedIp)?;
        let check = checksum::replace_word(Be16(check), Be16(first), Be16(marked));
        packet.store(at + 10, [check.0]).ok_or(Reason::MalformedIp)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use lb_abi::{
        backend::BackendEntry,
        counter::FlowEvent,
        flow::{FlowKey, FlowRecord},
        hop::HopEntry,
        link::LinkEntry,
        meta::Meta,
        slot::Slot,
        tag::FlowTag,
        vip::VipEntry,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::{
        address::Address,
        encap::Tags,
        env::FlowCell,
        outer::{Outer, Tunnel},
        packet::Frame,
        route::{NextHop, Route, Unroutable},
    };

    /// Maps that nobody wrote.
    struct Blank(Meta);

    struct NoRecord;

    impl FlowCell for NoRecord {
        fn load(&self) -> FlowRecord {
            FlowRecord::default()
        }

        fn store(&self, _: FlowRecord) {}
    }

    impl Env for Blank {
        fn meta(&self) -> Option<&Meta> {
            Some(&self.0)
        }

        fn vip(&self, _: &VipKey) -> Option<&VipEntry> {
            None
        }

        fn slot(&self, _: u32) -> Option<Slot> {
            None
        }

        fn backend(&self, _: u16) -> Option<&BackendEntry> {
            None
        }

        fn flow(&self, _: &FlowKey, _: FlowTag) -> Option<impl FlowCell> {
            None::<NoRecord>
        }

        fn record(&self, _: &FlowKey, _: FlowTag, _: FlowRecord) -> Option<()> {
            None
        }

        fn now_ticks(&self) -> u32 {
            0
        }

        fn hop(&self, _: u16) -> Option<HopEntry> {
            None
        }

        fn keep_hop(&self, _: u16, _: HopEntry) {}

        fn link(&self, _: u32) -> Option<&LinkEntry> {
            None
        }

        fn route(&self, _: u32, _: &Route) -> Result<NextHop, Unroutable> {
            Err(Unroutable::NoRoute)
        }

        fn may_answer(&self) -> bool {
            false
        }

        fn count(&self, _: Reason) {}

        fn count_flow(&self, _: FlowEvent) {}

        fn count_traffic(&self, _: u32, _: u16, _: u64, _: bool) {}
    }

    /// A frame of a family with `tags` tags; all that is not length or version is as given.
    fn frame(family: Family, tags: usize, noise: &[u8; 64], payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::from(&noise[..12]);
        frame[0] &= !1;
        for tag in 0..tags {
            frame.extend([0x81, 0x00, noise[12 + tag], noise[13 + tag]]);
        }
        frame.extend(family.ethertype().to_be_bytes());
        let at = frame.len();
        frame.extend(&noise[20..20 + family.header_len()]);
        frame.extend(payload);
        match family {
            Family::V4 => {
                frame[at] = 0x45;
                let length = (20 + payload.len() as u16).to_be_bytes();
                frame[at + 2..at + 4].copy_from_slice(&length);
                frame[at + 6..at + 8].fill(0);
            }
            Family::V6 => {
                frame[at] = 0x60 | frame[at] & 0x0f;
                frame[at + 4..at + 6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
            }
        }
        frame
    }

    fn gue_of(hash: u32) -> Tunnel {
        Tunnel::Udp { source_port: gue::source_port(hash) }
    }

    fn family() -> impl Strategy<Value = Family> {
        prop_oneof![Just(Family::V4), Just(Family::V6)]
    }

    proptest! {
        #[test]
        fn undoes_encapsulation(
            inner in family(),
            outer in family(),
            tags in 0usize..3,
            noise: [u8; 64],
            ends: ([u8; 4], [u8; 4]),
            payload in proptest::collection::vec(any::<u8>(), 0..80),
            tunnel in prop_oneof![Just(Tunnel::Ip), any::<u32>().prop_map(gue_of)],
        ) {
            const HEADROOM: usize = 48;
            let original = frame(inner, tags, &noise, &payload);
            let mut buffer = std::vec![0xa5; HEADROOM];
            buffer.extend(&original);
            let mut packet = Frame::new(&mut buffer, HEADROOM, 1);
            let link = Link::parse(&packet).unwrap();
            let ip = Ip::parse(&packet, link.len, inner).unwrap();
            let end = |[a, b, c, d]: [u8; 4]| match outer {
                Family::V4 => Address::new([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]),
                Family::V6 => Address::new([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]),
            };
            let (source, destination, label) = (end(ends.0), end(ends.1), u32::MAX);
            let outer = Outer { family: outer, source, destination, label, tunnel };
            let length = encap::length(&ip, Some(&outer)).unwrap();
            let addresses = Link::addresses(&packet).unwrap();
            let hop = NextHop { interface: 1, addresses, tags: [0; 2], mtu: u16::MAX };
            encap::rewrite(&mut packet, &link, &ip, Some(&outer), length, &hop, Tags::Keep).unwrap();
            prop_assert_eq!(packet.bytes().len(), original.len() + outer.overhead());
            prop_assert_eq!(decap(&mut packet, &Blank(Meta::default())), Verdict::Pass);
            prop_assert_eq!(packet.bytes(), &original[..]);
        }
    }
}
