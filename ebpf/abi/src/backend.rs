//! Where a packet is sent.

use crate::be::Be16;

/// Entry of map `BACKENDS`, by backend id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendEntry {
    /// Address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// `PRESENT`, `DOWN`, `LOCAL`.
    pub flags: u32,
    /// Bumped whenever the id is given to another backend.
    pub generation: u32,
    /// Port that translated packets go to, network order; 0: the VIP's.
    pub port: Be16,
    /// Zero.
    pub pad: u16,
}

/// The entry names a backend. Zero: nobody wrote it, a slot that names it is counted as no-backend.
pub const PRESENT: u32 = 1 << 0;
/// Health says it takes nothing; its flows are re-picked.
pub const DOWN: u32 = 1 << 1;
/// The address is one of this box's own: packets for it are given to the kernel as they came.
pub const LOCAL: u32 = 1 << 2;

const _: () = assert!(size_of::<BackendEntry>() == 28);
