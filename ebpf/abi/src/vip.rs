//! What a packet is addressed to.

use crate::be::Be16;

/// Key of map `VIPS`.
///
/// An ICMP echo request for a VIP is found under its address, protocol 1 or 58, and port 0. Every VIP address
/// has such an entry, with or without `ECHO`: by it fragments and packets with IP options are known to be for
/// a VIP.
///
/// A key of TCP or UDP with port 0 stands for any port; one with [`RANGE`] for the ports from its own to its
/// entry's last. Of all keys that a packet fits, the one with the longest address counts, and of these an exact port
/// before a range before any port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VipKey {
    /// Destination address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Destination port, network order.
    pub port: Be16,
    /// IP protocol number: 6, 17, 1 or 58; 4, 41 or 17 for `lb_decap`; with [`RANGE`] for a range of ports.
    pub protocol: u8,
    /// Bits at the end of the address that do not count, zero in it: 0 for one address, 8 for an IPv4 /24.
    pub host_bits: u8,
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
    /// `FORWARD_*` (exactly one, or none for an entry of an address) and other flags below.
    pub flags: u32,
    /// Key of this VIP's flow hash.
    pub hash_key: [u64; 2],
    /// Nanoseconds a flow without packets is remembered, in ticks (see [`crate::slot::TICK_SHIFT`]).
    pub flow_idle_ticks: u32,
    /// Under a key with [`RANGE`], its last port, host order; else 0.
    pub last_port: u16,
    /// Zero.
    pub pad: u16,
}

/// Encapsulate in IPv4 or IPv6, whichever the backend's address is.
pub const FORWARD_IPIP: u32 = 1 << 0;
/// Send the packet unchanged to the backend's Ethernet address.
pub const FORWARD_L2DSR: u32 = 1 << 1;
/// Encapsulate in UDP (GUE variant 1) over IPv4 or IPv6, whichever the backend's address is.
pub const FORWARD_GUE: u32 = 1 << 5;
/// `flows = "none"`: never record, always the owner.
pub const FLOWS_NONE: u32 = 1 << 2;
/// Answer ICMP echo requests.
pub const ECHO: u32 = 1 << 3;
/// For `lb_decap`, under key (outer destination, port 0, protocol 4 or 41) or, for GUE, (outer destination, port
/// 6080, protocol 17): take the outer header off. Where `META` is zero it takes off every one.
pub const DECAP: u32 = 1 << 4;
/// Translate source and destination, and replies back.
pub const FORWARD_NAT: u32 = 1 << 16;
/// On the entry of an address for ICMP: it is one that sources are translated to. What comes for it and belongs
/// to no flow is dropped; echo requests pass.
pub const NAT_SOURCE: u32 = 1 << 17;
/// The slot is chosen by the source address alone (see [`crate::subject`]), and fragments are forwarded.
pub const HASH_SOURCE: u32 = 1 << 20;
/// The slot is chosen by the destination port alone.
pub const HASH_PORT: u32 = 1 << 21;
/// Datagrams are led by their connection id first (see [`crate::quic`]).
pub const QUIC: u32 = 1 << 22;
/// Some clients go to pools of their own (see [`crate::source`]).
pub const SOURCES: u32 = 1 << 23;
/// Something beside the slot of its flow leads a packet: one of the four above.
pub const LED: u32 = HASH_SOURCE | HASH_PORT | QUIC | SOURCES;

/// In [`VipKey::protocol`]: the entry is of a range of ports that begins at [`VipKey::port`].
pub const RANGE: u8 = 0x80;

/// [`VipKey::protocol`] of the VIP that takes an address's fragments, under the transport protocol as port.
/// The number is IPv6's fragment header's (IANA), which no transport has.
pub const FRAGMENTS: u8 = 44;

impl VipKey {
    /// Where the VIP stands that takes fragments of a transport protocol to an address or prefix, if one does.
    pub const fn fragments(address: [u8; 16], host_bits: u8, protocol: u8) -> Self {
        Self { address, port: Be16::new(protocol as u16), protocol: FRAGMENTS, host_bits }
    }
}

const _: () = assert!(size_of::<VipKey>() == 20);
const _: () = assert!(size_of::<VipEntry>() == 40);
