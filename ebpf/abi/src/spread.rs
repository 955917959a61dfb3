//! Which core `lb_ingress` gives the packets of listeners to, where the interface has fewer queues than there are workers.

use crate::bounds::SPREAD_PORT_WORDS;

/// The one entry of map `SPREAD`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Key of the flow hash that chooses: the process's own, as its connections end with it.
    pub key: [u64; 2],
    /// Entries of map `SPREAD_CORES`. Zero: packets stay where they are.
    pub workers: u32,
    /// Zero.
    pub pad: u32,
}

/// Word of map `SPREAD_PORTS` that has a port, and the port's bit in it.
#[inline(always)]
pub const fn port_bit(port: u16) -> (u32, u32) {
    ((port >> 5) as u32, 1 << (port & 31))
}

const _: () = assert!(size_of::<Spread>() == 24 && port_bit(u16::MAX).0 == SPREAD_PORT_WORDS - 1);
