//! What the packet path has to know of interfaces, and the routing table does not say.

/// Entry of map `LINKS`, by interface index, written by control. An interface without an entry is what it seems.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkEntry {
    /// The bond whose port it is: packets come in by the port, and are routed as if by the bond. Zero: none.
    pub upper: u32,
    /// The interface that a VLAN device sends by, which XDP cannot do through the device. Zero: it is none.
    pub lower: u32,
    /// Tags of a VLAN device, outermost first: type and control information, four bytes as on the wire; zero ends them.
    pub tags: [u32; 2],
    /// Where packets that came in by it go back out to when the routing table has no answer: Ethernet destination, then
    /// source, as words of the wire.
    pub gateway: [u16; 6],
    /// Longest IP packet on that way. Zero: there is no gateway.
    pub gateway_mtu: u16,
    /// Zero.
    pub pad: u16,
}

const _: () = assert!(size_of::<LinkEntry>() == 32);
