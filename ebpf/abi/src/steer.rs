//! How `lb_steer` finds the socket of a worker.

use crate::be::Be16;

/// Key of map `STEER_LISTENERS`: the address a listener group is bound to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SteerKey {
    /// Bound address; IPv4 as `::ffff:a.b.c.d`; all zero after the mapping prefix for a wildcard.
    pub address: [u8; 16],
    /// Bound port, network order.
    pub port: Be16,
    /// 6 or 17.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// Value of map `STEER_LISTENERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteerEntry {
    /// Index of the group: its sockets are at `listener * WORKERS_MAX + worker`.
    pub listener: u32,
    /// Sockets in the group.
    pub workers: u32,
    /// `MODE_CORE` or `MODE_HASH`.
    pub mode: u32,
    /// `STEER_*` below.
    pub flags: u32,
}

/// The worker of the core that took the packet.
pub const MODE_CORE: u32 = 1;
/// The worker that the kernel's flow hash names.
pub const MODE_HASH: u32 = 2;

/// A new connection for a worker that lags goes to another one.
pub const STEER_RELIEVE: u32 = 1 << 0;
/// The group's sockets are in map `LOOKUP_SOCKETS`, since `lb_lookup` names them, too.
pub const STEER_LOOKED_UP: u32 = 1 << 1;
/// The group's listener takes SYN cookies: `lb_cookie` may answer for it.
pub const STEER_COOKIES: u32 = 1 << 2;
/// From this load on a worker lags: of 100, how much of the last while its thread ran or waited to run.
pub const LOAD_LAGGING: u32 = 90;

/// Entry of `STEER_COUNTERS`, per CPU, by listener index.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteerCounters {
    /// Chosen by core.
    pub by_core: u64,
    /// Chosen by hash.
    pub by_hash: u64,
    /// The chosen socket was missing: the hash took over from the core (then counted there, too), or the
    /// kernel did.
    pub missing: u64,
}

const _: () = assert!(size_of::<SteerKey>() == 20);
const _: () = assert!(size_of::<SteerEntry>() == 16);
const _: () = assert!(size_of::<SteerCounters>() == 24);
