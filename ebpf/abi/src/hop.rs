//! The last answer of the routing table, by backend.
//!
//! `bpf_fib_lookup` is the dearest step of a forwarded packet, and for a backend its answer seldom changes. So
//! each core keeps it for the tick it was given in (see [`crate::slot::TICK_SHIFT`]): a change of routes or
//! neighbours is seen within 134 ms, with or without a daemon, and nobody has to tell the packet path.

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
