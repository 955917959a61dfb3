//! How a health probe reaches a backend the way a VIP's traffic does.
//!
//! The prober's socket connects to the backend's own address: route, neighbour and way out are the kernel's. On the
//! way out `lb_probe_out` finds the packet by its mark, makes the VIP its destination and puts the outer header before
//! it. The answer comes from the VIP, to the socket's port; `lb_probe_in` makes the backend its source again. So a
//! backend that does not take packets apart, or does not hold the VIP, does not answer.

/// Value of map `PROBES`, by number of the probe. Both addresses are of one family.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeEntry {
    /// The VIP; IPv4 as `::ffff:a.b.c.d`.
    pub vip: [u8; 16],
    /// What the socket connects to, the same.
    pub backend: [u8; 16],
    /// Source of the outer header, the same.
    pub outer: [u8; 16],
    /// `PROBE_*` below; 0: nothing is put before the packet, as for l2dsr.
    pub flags: u32,
    /// Zero.
    pub pad: u32,
}

/// An outer IP header goes before the packet.
pub const PROBE_IPIP: u32 = 1 << 0;

/// A probe's socket has this mark (SO_MARK), the number of the probe in its low bits.
pub const PROBE_MARK: u32 = 0x6c62_0000;
/// The bits of the number.
pub const PROBE_NUMBER: u32 = 0xffff;

const _: () = assert!(size_of::<ProbeEntry>() == 56);

/// Index of a local port in map `PROBE_PORTS`: those of TCP, then those of UDP.
pub const fn port_index(port: u16, is_udp: bool) -> u32 {
    port as u32 | (is_udp as u32) << 16
}
