//! Full address translation: what is remembered of a translated flow, and which source it was given.
//!
//! A flow has two entries, one for each way, under the addresses and ports that its packets arrive with: what
//! an entry holds is what they leave with. So the peer of an entry lies under its own values turned round
//! ([`NatEntry::peer`]). Entries begin in the small map of half-open flows and move to the large one when the
//! client has answered the backend. Who may write which entry when is in `nat` of the kernel half.

use crate::{be::Be16, flow::FlowKey, slot::ticks};

/// Value of maps `NAT_OPENING` and `NAT_FLOWS`; their keys are [`FlowKey`]s. Aligned as map values are, so that it
/// is read in large words.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatEntry {
    /// Source address that the packet leaves with; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// Destination address that it leaves with, the same.
    pub destination: [u8; 16],
    /// Source port that it leaves with, network order.
    pub source_port: Be16,
    /// Destination port that it leaves with, network order.
    pub destination_port: Be16,
    /// Backend id.
    pub backend: u16,
    /// Counter index of the VIP.
    pub vip: u16,
    /// [`crate::backend::BackendEntry::generation`] of the backend that was chosen.
    pub generation: u32,
    /// Of a reply's entry once it is [`ANSWERED`] by TCP: the number after the backend's first, host order.
    pub expected: u32,
    /// [`FORWARD`], [`ANSWERED`], [`FIN`], [`RST`], [`HEARD`].
    pub flags: u32,
    /// Tick of the last packet this way.
    pub seen: u32,
}

impl NatEntry {
    /// The key of the entry for the other way.
    #[inline(always)]
    pub const fn peer(&self, protocol: u8) -> FlowKey {
        FlowKey {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol,
            pad: [0; 3],
        }
    }
}

/// The entry is for packets from the client; without it, for replies.
pub const FORWARD: u32 = 1 << 0;
/// Of a reply's entry: the backend has answered.
pub const ANSWERED: u32 = 1 << 1;
/// A FIN went this way.
pub const FIN: u32 = 1 << 2;
/// An RST went this way.
pub const RST: u32 = 1 << 3;
/// Of a reply's entry: the client has shown that it hears the backend.
pub const HEARD: u32 = 1 << 4;

/// How long a half-open flow is remembered, and an answered datagram that was the only one.
pub const OPENING_TICKS: u32 = ticks(30);
/// TCP, established. Source: RFC 5382, 5, REQ-5 (at least 2 hours 4 minutes).
pub const TCP_TICKS: u32 = ticks(7440);
/// TCP after a FIN either way: whoever sent the first one may still be in TIME-WAIT. As nf_conntrack has it.
pub const CLOSING_TICKS: u32 = ticks(120);
/// TCP after an RST. As nf_conntrack has it.
pub const RESET_TICKS: u32 = ticks(10);
/// UDP. Source: RFC 4787, 4.3, REQ-5 (at least 2 minutes).
pub const UDP_TICKS: u32 = ticks(120);
/// Another flow may be given the port of a half-open one after this long: so much later than the flow can still
/// be established that the two never meet on two cores.
pub const OPENING_REUSE_TICKS: u32 = ticks(35);
/// The program gives the port of an expired established flow to another one this much later than control may
/// remove the entry: control's own delay between reading an entry and removing it is shorter.
pub const GRACE_TICKS: u32 = ticks(60);

/// Ticks that an established flow is remembered after its last packet; `flags` are those of its two entries.
#[inline(always)]
pub const fn idle_ticks(protocol: u8, flags: [u32; 2]) -> u32 {
    let [one, other] = flags;
    if protocol == 17 {
        UDP_TICKS
    } else if (one | other) & RST != 0 {
        RESET_TICKS
    } else if one & other & FIN != 0 {
        CLOSING_TICKS
    } else {
        TCP_TICKS
    }
}

/// Whether more than `idle` ticks have passed since `seen`. Another core's clock may be a tick ahead of ours.
#[inline(always)]
pub const fn is_idle(seen: u32, now: u32, idle: u32) -> bool {
    let age = now.wrapping_sub(seen);
    age > idle && age <= u32::MAX / 2
}

/// The later of two ticks.
#[inline(always)]
pub const fn later(one: u32, other: u32) -> u32 {
    if one.wrapping_sub(other) <= u32::MAX / 2 { one } else { other }
}

/// First source port that is given out; those below are for services (RFC 6335, 6).
pub const PORT_FIRST: u16 = 1024;
/// Source ports of one address.
pub const PORTS: u32 = 65_536 - PORT_FIRST as u32;

/// Entry of map `NAT_POOLS`, by counter index of the VIP: which sources its flows are given.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatPool {
    /// Index of the first address in `NAT_SOURCES`.
    pub first: u32,
    /// Addresses; 0: none.
    pub count: u32,
    /// Cores that the ports are dealt out to: all that the machine may ever have.
    pub cores: u32,
    /// Zero.
    pub pad: u32,
}

impl NatPool {
    /// The source at a position of a core's own walk: index in `NAT_SOURCES` and port, host order.
    ///
    /// Cores never meet: core c of n has every n-th port of every address. Positions first change the address,
    /// so that a walk round all of them is as long as can be, and a port rests as long as can be.
    /// None: the pool is empty, or the core has no part in it.
    #[inline(always)]
    pub const fn place(&self, core: u32, position: u32) -> Option<(u32, u16)> {
        if self.count == 0 || core >= self.cores || self.cores > PORTS {
            return None;
        }
        let index = self.first.wrapping_add(position % self.count);
        let slot = position / self.count % (PORTS / self.cores);
        Some((index, PORT_FIRST + (slot * self.cores + core) as u16))
    }
}

/// Index of map `NAT_EVENTS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatEvent {
    /// A flow was given a source.
    Opened = 0,
    /// Its client answered: it moved among the established.
    Established = 1,
    /// No room among the established: it stays half-open, and may be pushed out.
    Refused = 2,
    /// A SYN or datagram began anew what was closing, expired or had lost its backend.
    Reopened = 3,
    /// The port of an expired flow was given to another one before control had removed it.
    Reused = 4,
    /// Another core was quicker to open the same flow.
    Raced = 5,
}

impl NatEvent {
    /// All, in index order.
    pub const ALL: [Self; 6] =
        [Self::Opened, Self::Established, Self::Refused, Self::Reopened, Self::Reused, Self::Raced];

    /// Name in metrics and `lb show`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Established => "established",
            Self::Refused => "refused",
            Self::Reopened => "reopened",
            Self::Reused => "reused",
            Self::Raced => "raced",
        }
    }
}

const _: () = assert!(size_of::<NatEntry>() == 56);
const _: () = assert!(size_of::<NatPool>() == 16);

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_peer_of_the_peer_is_the_key() {
        let key = FlowKey {
            source: [1; 16],
            destination: [2; 16],
            source_port: Be16::new(3),
            destination_port: Be16::new(4),
            protocol: 6,
            pad: [0; 3],
        };
        let back = NatEntry {
            source: key.destination,
            destination: key.source,
            source_port: key.destination_port,
            destination_port: key.source_port,
            ..NatEntry::default()
        };
        assert_eq!(back.peer(6), key);
    }

    #[test]
    fn cores_share_no_port_and_each_walks_through_its_whole_part() {
        for (count, cores) in [(1, 1), (3, 2), (16, 7), (2, 1024)] {
            let pool = NatPool { first: 5, count, cores, pad: 0 };
            let part = PORTS / cores * count;
            let mut all = HashSet::new();
            for core in 0..cores {
                for position in 0..part {
                    let (index, port) = pool.place(core, position).unwrap();
                    assert!((5..5 + count).contains(&index) && port >= PORT_FIRST);
                    assert!(all.insert((index, port)), "core {core} of {cores}: {index} {port}");
                }
                assert_eq!(pool.place(core, part), pool.place(core, 0), "then it begins again");
            }
            assert_eq!(all.len() as u32, part * cores);
        }
    }

    #[test]
    fn who_has_no_part_gets_none() {
        let pool = NatPool { first: 0, count: 1, cores: 2, pad: 0 };
        assert_eq!(pool.place(2, 0), None);
        assert_eq!(NatPool { count: 0, ..pool }.place(0, 0), None);
        assert_eq!(NatPool { cores: 0, ..pool }.place(0, 0), None);
    }

    #[test]
    fn time_wraps() {
        assert!(!is_idle(u32::MAX, 9, 10));
        assert!(is_idle(u32::MAX, 10, 10));
        assert!(!is_idle(11, 10, 5), "a clock a tick ahead");
        assert_eq!(later(u32::MAX, 3), 3);
        assert_eq!(later(5, 3), 5);
    }

    #[test]
    fn both_ends_close_one_resets() {
        assert_eq!(idle_ticks(6, [FORWARD, 0]), TCP_TICKS);
        assert_eq!(idle_ticks(6, [FORWARD | FIN, 0]), TCP_TICKS, "the other end may go on sending");
        assert_eq!(idle_ticks(6, [FORWARD | FIN, FIN]), CLOSING_TICKS);
        assert_eq!(idle_ticks(6, [FORWARD | FIN, FIN | RST]), RESET_TICKS);
        assert_eq!(idle_ticks(17, [FORWARD, ANSWERED]), UDP_TICKS);
    }
}
