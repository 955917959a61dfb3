//! Other addresses and ports in a packet, with every checksum that covers them.
//!
//! Checksums are changed by what changed (RFC 1624) and never looked at: a wrong one stays wrong, so that the
//! receiver finds it.

use lb_abi::{be::Be16, flow::FlowKey, nat::NatEntry, reason::Reason};

use super::Passage;

use crate::{
    address::Address,
    checksum::Delta,
    numbers::{Family, protocol},
    packet::Packet,
    parse::{Ip, Ports},
};

/// Two ends of a packet: addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    /// Source address; IPv4 as `::ffff:a.b.c.d`.
    pub(super) source: Address,
    /// Destination address, the same.
    pub(super) destination: Address,
    /// Ports.
    pub(super) ports: Ports,
}

impl Ends {
    /// What an entry says that a packet leaves with.
    #[inline(always)]
    pub(super) const fn of(entry: &NatEntry) -> Self {
        Self {
            source: Address::new(entry.source),
            destination: Address::new(entry.destination),
            ports: Ports { source: entry.source_port, destination: entry.destination_port },
        }
    }

    /// What a packet arrives with.
    #[inline(always)]
    const fn of_key(key: &FlowKey) -> Self {
        Self {
            source: Address::new(key.source),
            destination: Address::new(key.destination),
            ports: Ports { source: key.source_port, destination: key.destination_port },
        }
    }

    /// Of a packet the other way.
    #[inline(always)]
    pub(super) const fn turned(self) -> Self {
        let Ports { source, destination } = self.ports;
        Self {
            source: self.destination,
            destination: self.source,
            ports: Ports { source: destination, destination: source },
        }
    }
}

/// Gives a TCP or UDP packet the ends of its entry; the header at `ip` is a plain one.
///
/// Err: the frame ends before its headers do, and is only fit to be dropped.
#[inline(never)]
pub(super) fn translate<P: Packet>(packet: &mut P, ip: &Ip, passage: &Passage) -> Result<(), Reason> {
    let old = Ends::of_key(&passage.key);
    give(packet, ip, &old, &Ends::of(&passage.entry)).ok_or(Reason::MalformedIp)
}

#[inline(always)]
fn give<P: Packet>(packet: &mut P, ip: &Ip, old: &Ends, new: &Ends) -> Option<()> {
    let ports = old.ports;
    let mut delta = addresses(packet, ip.family, ip.at, old, new)?;
    let at = ip.at + ip.family.header_len();
    delta.replace(ports.source.0, new.ports.source.0);
    delta.replace(ports.destination.0, new.ports.destination.0);
    packet.store(at, [new.ports.source.0, new.ports.destination.0])?;
    let check_at = at + check_offset(ip.protocol);
    let [old] = packet.load(check_at)?;
    packet.store(check_at, [apply(delta, ip.protocol, old)])
}

/// Gives an ICMP error the addresses of its entry, which is that of packets that travel as the error does.
///
/// Err: as in [`translate`].
#[inline(never)]
pub(super) fn translate_error<P: Packet>(
    packet: &mut P,
    ip: &Ip,
    passage: &mut Passage,
) -> Result<(), Reason> {
    let ports = Ports { source: Be16(0), destination: Be16(0) };
    let old = Ends { source: ip.source, destination: ip.destination, ports };
    let delta = addresses(packet, ip.family, ip.at, &old, &Ends::of(&passage.entry));
    let delta = delta.ok_or(Reason::MalformedIp)?;
    // In IPv6 the ICMP checksum covers the addresses.
    passage.delta = if matches!(ip.family, Family::V6) { delta } else { Delta::default() };
    Ok(())
}

/// Gives the packet that an ICMP error quotes the entry's ends turned round, as it went the other way; and seals the
/// error. `at` is where the quoted IP header begins.
///
/// Err: as in [`translate`].
#[inline(never)]
pub(super) fn translate_quote<P: Packet>(
    packet: &mut P,
    ip: &Ip,
    at: usize,
    passage: &Passage,
) -> Result<(), Reason> {
    // The key is the quote's, turned round.
    let quoted = Ends::of_key(&passage.key).turned();
    let new = Ends::of(&passage.entry).turned();
    give_quote(packet, ip, at, passage, &quoted, &new).ok_or(Reason::MalformedIp)
}

#[inline(always)]
fn give_quote<P: Packet>(
    packet: &mut P,
    ip: &Ip,
    at: usize,
    passage: &Passage,
    quoted: &Ends,
    new: &Ends,
) -> Option<()> {
    let (family, protocol) = (ip.family, passage.key.protocol);
    // The quoted header's own checksum is changed by as much as its addresses change it, so that a sum over the
    // whole header stays what it was.
    let mut inner = addresses(packet, family, at, quoted, new)?;
    let mut all = passage.delta;
    if matches!(family, Family::V6) {
        sum_addresses(&mut all, quoted, new);
    }
    let transport_at = at + family.header_len();
    let ports = [quoted.ports.source.0, quoted.ports.destination.0];
    let new_ports = [new.ports.source.0, new.ports.destination.0];
    for (old, new) in ports.into_iter().zip(new_ports) {
        inner.replace(old, new);
        all.replace(old, new);
    }
    packet.store(transport_at, new_ports)?;
    // A router may quote as little as eight bytes of the transport header (RFC 792).
    let check_at = transport_at + check_offset(protocol);
    if check_at + 2 <= ip.at + ip.length as usize
        && let Some([old]) = packet.load(check_at)
    {
        let check = apply(inner, protocol, old);
        all.replace(old, check);
        packet.store(check_at, [check])?;
    }
    let check_at = ip.at + family.header_len() + 2;
    let [old] = packet.load(check_at)?;
    packet.store(check_at, [all.apply(old)])
}

/// Other addresses in an IP header, and what that changes in checksums that cover them.
#[inline(always)]
fn addresses<P: Packet>(packet: &mut P, family: Family, at: usize, old: &Ends, new: &Ends) -> Option<Delta> {
    let mut delta = Delta::default();
    // In both families: the first twelve bytes of an IPv4 address are the same before and after, and change no sum.
    sum_addresses(&mut delta, old, new);
    match family {
        Family::V4 => {
            let ([s0, s1], [d0, d1]) = (new.source.last_words(), new.destination.last_words());
            let [check] = packet.load(at + 10)?;
            packet.store(at + 10, [delta.apply(check), s0, s1, d0, d1])?;
        }
        Family::V6 => {
            packet.store(at + 8, new.source.words())?;
            packet.store(at + 24, new.destination.words())?;
        }
    }
    Some(delta)
}

#[inline(always)]
fn sum_addresses(delta: &mut Delta, old: &Ends, new: &Ends) {
    for (old, new) in [(old.source, new.source), (old.destination, new.destination)] {
        let ((a, b), (c, d)) = (old.halves(), new.halves());
        delta.replace_quad(a, c);
        delta.replace_quad(b, d);
    }
}

/// Where the checksum stands in a TCP or UDP header.
#[inline(always)]
const fn check_offset(number: u8) -> usize {
    if number == protocol::TCP { 16 } else { 6 }
}

#[inline(always)]
const fn apply(delta: Delta, number: u8, check: u16) -> u16 {
    if number == protocol::TCP { delta.apply(check) } else { delta.apply_udp(check) }
}
