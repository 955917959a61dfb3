//! Questions to the routing table, and its answers.

use lb_abi::reason::Reason;

use crate::{address::Address, numbers::Family};

/// A question to the routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Family of both addresses.
    pub family: Family,
    /// Source address; IPv4 as `::ffff:a.b.c.d`.
    pub source: Address,
    /// Destination address, the same.
    pub destination: Address,
    /// IP protocol of the packet as it will leave.
    pub protocol: u8,
    /// Its length from the IP header on, checked against the MTU of the way out.
    pub length: u16,
    /// Any router may carry it: it is addressed to the backend. Else the backend must be a neighbour.
    pub is_tunnel: bool,
}

/// Where a frame goes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface it leaves by.
    pub interface: u32,
    /// Ethernet destination, then source, as words of the wire.
    pub addresses: [u16; 6],
    /// Tags that the frame gets, as in [`lb_abi::link::LinkEntry::tags`]; none: it keeps or loses its own.
    pub tags: [u32; 2],
    /// Longest IP packet that the way out takes.
    pub mtu: u16,
}

impl NextHop {
    /// Whether the frame gets tags.
    #[inline(always)]
    pub const fn is_tagged(&self) -> bool {
        self.tags[0] != 0
    }
}

/// Why there is no next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unroutable {
    /// No usable route, or forwarding is disabled on the ingress interface.
    NoRoute,
    /// The next hop's Ethernet address is not known.
    NoNeighbour,
    /// Longer than the way out takes.
    TooLong {
        /// Longest IP packet that it takes.
        mtu: u16,
    },
}

impl Unroutable {
    /// The drop reason it is counted under.
    #[inline(always)]
    pub const fn reason(self) -> Reason {
        match self {
            Self::NoRoute => Reason::NoRoute,
            Self::NoNeighbour => Reason::NoNeighbour,
            Self::TooLong { .. } => Reason::Mtu,
        }
    }
}
