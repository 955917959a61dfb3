//! How `lb_lookup` finds the listener of an address that no socket is bound to.

/// Port ranges of one prefix.
pub const RANGES_MAX: usize = 8;

/// Ports that belong to a listener.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookupRange {
    /// First port, host order.
    pub first: u16,
    /// Last port, host order.
    pub last: u16,
    /// Index in map `LOOKUP_SOCKETS` of the group's first socket.
    pub socket: u16,
    /// 6 or 17. Zero: this range and those behind it are not used.
    pub protocol: u16,
}

/// Value of map `LOOKUP_PREFIXES`, whose keys are prefixes of addresses, IPv4 as `::ffff:a.b.c.d`.
///
/// The first range that has the port counts. Ranges of shorter prefixes around this one are repeated behind its own:
/// one look-up answers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookupEntry {
    /// See above.
    pub ranges: [LookupRange; RANGES_MAX],
}

const _: () = assert!(size_of::<LookupEntry>() == 64);
