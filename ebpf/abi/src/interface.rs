//! Counters by the interface that a packet came in by.
//!
//! Interfaces have large, sparse indexes, and a hash would cost a dropped packet more than all else of it. So control
//! gives each interface it attaches to a small number, and writes that down where its index says, in a direct-mapped
//! table: one array look-up. Only what is dropped is counted so; a forwarded packet pays nothing.

/// Entries of map `INTERFACES`; a power of two.
pub const PLACES: u32 = 1024;
/// Interfaces with counters of their own, number 0 included.
pub const NUMBERS_MAX: u32 = 64;
/// Number of every interface that has none: its place is taken by another, or nobody told us of it.
pub const OTHERS: u32 = 0;
/// Counters of one interface, by [`crate::reason::Reason`]; room for reasons to come.
pub const STRIDE: u32 = 64;
/// Entries of map `DROPS`.
pub const DROPS_LEN: u32 = NUMBERS_MAX * STRIDE;

/// Entry of map `INTERFACES`, at [`place`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceEntry {
    /// Index of the interface; 0: none is here.
    pub index: u32,
    /// Its number, below [`NUMBERS_MAX`].
    pub number: u32,
}

/// Where an interface's entry is.
#[inline(always)]
pub const fn place(index: u32) -> u32 {
    index & (PLACES - 1)
}

/// Where in `DROPS` a reason is counted for an interface's number.
#[inline(always)]
pub const fn counter(number: u32, reason: u32) -> u32 {
    number * STRIDE + reason
}

const _: () = assert!(size_of::<InterfaceEntry>() == 8);
const _: () = assert!(PLACES.is_power_of_two() && crate::reason::COUNT <= STRIDE);
