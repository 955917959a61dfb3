//! Taking an outer IP header off, for a backend that has no tunnel device.
//!
//! Which outer destinations are handled:
//! - maps that nobody wrote (`META` is zero): every one, so that a backend that runs `lb_decap` alone has
//!   nothing to configure;
//! - else only keys of map `VIPS` with the flag `DECAP`: (outer destination, port 0, protocol 4 or 41 as the
//!   inner packet is).
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
    numbers::{Family, protocol},
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
    let inner = match outer.protocol {
        protocol::IPV4 => Family::V4,
        protocol::IPV6 => Family::V6,
        _ => return Err(Reason::NotOurs),
    };
    let key = VipKey { address: outer.destination.bytes(), port: Be16(0), protocol: outer.protocol, host_bits: 0 };
    let handled = any || env.vip(&key).is_some_and(|entry| entry.flags & DECAP != 0);
    if !handled || !matches!(outer.shape, Shape::Plain) || link.to_group {
        return Err(Reason::NotOurs);
    }
    let at = link.len + family.header_len();
    let [first] = packet.load(at).ok_or(Reason::MalformedIp)?;
    let version = match inner {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    if u16::from_be(first) >> 12 != version
        || (outer.length as usize) < family.header_len() + inner.header_len()
    {
        return Err(Reason::MalformedIp);
    }
    let addresses = Link::addresses(packet)?;
    carry_congestion(packet, at, inner, first, outer.class)?;
    packet.move_head(family.header_len() as i32).ok_or(Reason::MalformedIp)?;
    encap::write_link(packet, &addresses, &link, link.len, inner.ethertype()).ok_or(Reason::MalformedIp)
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
        meta::Meta,
        slot::Slot,
        vip::VipEntry,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::{
        address::Address,
        encap::{Outer, Tags},
        env::{FlowCell, NextHop, Route, Unroutable},
        packet::Frame,
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

        fn flow(&self, _: &FlowKey) -> Option<impl FlowCell> {
            None::<NoRecord>
        }

        fn record(&self, _: &FlowKey, _: FlowRecord) -> Option<()> {
            None
        }

        fn now_ticks(&self) -> u32 {
            0
        }

        fn hop(&self, _: u16) -> Option<HopEntry> {
            None
        }

        fn keep_hop(&self, _: u16, _: HopEntry) {}

        fn route(&self, _: u32, _: &Route) -> Result<NextHop, Unroutable> {
            Err(Unroutable::NoRoute)
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
        ) {
            const HEADROOM: usize = 40;
            let original = frame(inner, tags, &noise, &payload);
            let mut buffer = std::vec![0; HEADROOM];
            buffer.extend(&original);
            let mut packet = Frame::new(&mut buffer, HEADROOM, 1);
            let link = Link::parse(&packet).unwrap();
            let ip = Ip::parse(&packet, link.len, inner).unwrap();
            let end = |[a, b, c, d]: [u8; 4]| match outer {
                Family::V4 => Address::new([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]),
                Family::V6 => Address::new([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]),
            };
            let outer =
                Outer { family: outer, source: end(ends.0), destination: end(ends.1), label: u32::MAX };
            let length = encap::length(&ip, Some(&outer)).unwrap();
            let hop = NextHop { interface: 1, addresses: Link::addresses(&packet).unwrap(), mtu: u16::MAX };
            encap::rewrite(&mut packet, &link, &ip, Some(&outer), length, &hop, Tags::Keep).unwrap();
            prop_assert_eq!(packet.bytes().len(), original.len() + outer.family.header_len());
            prop_assert_eq!(decap(&mut packet, &Blank(Meta::default())), Verdict::Pass);
            prop_assert_eq!(packet.bytes(), &original[..]);
        }
    }
}
