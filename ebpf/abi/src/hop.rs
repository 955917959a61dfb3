//! The last answer of the routing table, by backend.
//!
//! `bpf_fib_lookup` is the dearest step of a forwarded packet, and for a backend its answer seldom changes. So
//! each core keeps it for the tick it was given in (see [`HOP_TICK_SHIFT`]): a change of routes or neighbours is
//! seen within a third of a second, with or without a daemon, and nobody has to tell the packet path.

/// Jiffies shifted right by this are the ticks of [`HopEntry::tick`]: 32 of them, that is 32 ms on a kernel of
/// 1000 Hz, 128 ms at 250 Hz and 320 ms at 100 Hz. Unlike the clock of [`crate::slot::TICK_SHIFT`] they are read
/// without calling a helper.
pub const HOP_TICK_SHIFT: u32 = 5;

/// Entry of map `HOPS`, per CPU, by backend id. Written by the packet path alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HopEntry {
    /// Tick of the answer.
    pub tick: u32,
    /// Interface the packet had come in by. Zero, which no interface has: nothing was asked yet.
    pub ingress: u32,
    /// [`crate::backend::BackendEntry::generation`]: another one is another backend.
    pub generation: u32,
    /// Interface to leave by.
    pub interface: u32,
    /// Ethernet destination, then source, as words of the wire.
    pub addresses: [u16; 6],
    /// Tags that a frame gets, as in [`crate::link::LinkEntry::tags`]; none: it keeps or loses its own.
    pub tags: [u32; 2],
    /// Longest IP packet that the way out takes.
    pub mtu: u16,
    /// Zero.
    pub pad: u16,
}

const _: () = assert!(size_of::<HopEntry>() == 40);
