//! What a packet is addressed to.

use crate::be::Be16;

/// Key of map `VIPS`.
///
/// An ICMP echo request for a VIP is found under its address, protocol 1 or 58, and port 0. Every VIP address
/// has such an entry, with or without `ECHO`: by it fragments and packets with IP options are known to be for
/// a VIP.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VipKey {
    /// Destination address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Destination port, network order.
    pub port: Be16,
    /// IP protocol number: 6, 17, 1 or 58; 4 or 41 for `lb_decap`.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// Value of map `VIPS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipEntry {
    /// Index of this VIP's counters, below [`crate::bounds::VIPS_MAX`].
    pub vip: u32,
    /// Index of the first slot of its pool's table in `SLOTS`.
    pub table: u32,
    /// Slots in that table.
    pub table_len: u32,
    /// `FORWARD_*` (exactly one, or none for an entry that only answers echo) and other flags below.
    pub flags: u32,
    /// Key of this VIP's flow hash.
    pub hash_key: [u64; 2],
    /// Nanoseconds a flow without packets is remembered, in ticks (see [`crate::slot::TICK_SHIFT`]).
    pub flow_idle_ticks: u32,
    /// Zero.
    pub pad: u32,
}

/// Encapsulate in IPv4 or IPv6, whichever the backend's address is.
pub const FORWARD_IPIP: u32 = 1 << 0;
/// Send the packet unchanged to the backend's Ethernet address.
pub const FORWARD_L2DSR: u32 = 1 << 1;
/// `flows = "none"`: never record, always the owner.
pub const FLOWS_NONE: u32 = 1 << 2;
/// Answer ICMP echo requests.
pub const ECHO: u32 = 1 << 3;
/// For `lb_decap`, under key (outer destination, port 0, protocol 4 or 41): take the outer header off. Where
/// `META` is zero it takes off every one.
pub const DECAP: u32 = 1 << 4;
/// The slot is chosen by the source address alone (see [`crate::subject`]), and fragments are forwarded.
pub const HASH_SOURCE: u32 = 1 << 16;
/// The slot is chosen by the destination port alone.
pub const HASH_PORT: u32 = 1 << 17;
/// Datagrams are led by their connection id first (see [`crate::quic`]).
pub const QUIC: u32 = 1 << 18;
/// Some clients go to pools of their own (see [`crate::source`]).
pub const SOURCES: u32 = 1 << 19;

/// [`VipKey::protocol`] of the VIP that takes an address's fragments, under the transport protocol as port.
/// The number is IPv6's fragment header's (IANA), which no transport has.
pub const FRAGMENTS: u8 = 44;

impl VipKey {
    /// Where the VIP stands that takes fragments of a transport protocol to an address, if one does.
    #[inline(always)]
    pub const fn fragments(address: [u8; 16], protocol: u8) -> Self {
        Self { address, port: Be16::new(protocol as u16), protocol: FRAGMENTS, pad: 0 }
    }
}

const _: () = assert!(size_of::<VipKey>() == 20);
const _: () = assert!(size_of::<VipEntry>() == 40);
