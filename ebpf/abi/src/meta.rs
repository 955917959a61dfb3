//! What holds for the whole packet path.

use crate::{lengths::LISTS, tag::TagKeys};

/// The one entry of map `META`, written last by control and read once per packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// [`crate::ABI_VERSION`] of whoever wrote the maps. Zero: nothing was written yet, everything passes.
    pub abi: u32,
    /// `FLAG_*` below.
    pub flags: u32,
    /// Generation of the config that the maps hold.
    pub generation: u64,
    /// Outer source address of IPIP and GUE in IPv4, network order; zero: none, such packets are dropped as no-route.
    pub outer_v4: [u8; 4],
    /// Bits of `outer_v4` that vary from flow to flow by IPIP; they are zero there. Zero: none does.
    pub outer_v4_mask: [u8; 4],
    /// The same in IPv6; zero: none.
    pub outer_v6: [u8; 16],
    /// The same for the last four bytes of `outer_v6`.
    pub outer_v6_mask: [u8; 4],
    /// Which of its two copies in map `LENGTHS` counts, by list (see [`crate::lengths`]): 0 or 1.
    pub lengths: [u8; LISTS],
    /// Keys the fingerprints of map `GUARD`.
    pub guard_key: [u64; 2],
    /// Keys what flows are found by in map `FLOWS`. It stays as long as the maps do.
    pub tag_keys: TagKeys,
    /// See [`crate::activity::word`].
    pub activity: u32,
    /// Zero.
    pub pad: u32,
}

/// Some IPv4 prefix is denied; without this flag deny and allow list are not looked at.
pub const FLAG_DENY_V4: u32 = 1 << 0;
/// The same for IPv6.
pub const FLAG_DENY_V6: u32 = 1 << 1;
/// Some slot is moving: flow records may exist.
pub const FLAG_MOVING: u32 = 1 << 2;
/// Some VIP has a range of ports, any port, or a prefix for its address.
pub const FLAG_WIDE_VIPS: u32 = 1 << 8;
/// Addresses are translated: what is for no VIP may be a reply.
pub const FLAG_NAT: u32 = 1 << 16;
/// New flows of one source are limited while there is a flood of them (see [`crate::limit`]).
pub const FLAG_LIMITED: u32 = 1 << 17;
/// Some listener takes SYN cookies: SYNs for no VIP are counted, and above [`crate::bounds::SYNS_PER_TICK`] `lb_cookie`
/// is called.
pub const FLAG_COOKIES: u32 = 1 << 24;
/// Packets of listeners are spread over the workers' cores (see [`crate::spread`]).
pub const FLAG_SPREAD: u32 = 1 << 25;

const _: () = assert!(size_of::<Meta>() == 104);
