//! What an outer header says.

use lb_abi::be::Be16;

use crate::{
    address::Address,
    numbers::{Family, UDP_LEN, protocol},
};

/// The outer header of an encapsulated packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Its version.
    pub family: Family,
    /// Source address; IPv4 as `::ffff:a.b.c.d`.
    pub source: Address,
    /// Destination address, the same.
    pub destination: Address,
    /// Flow label of IPv6, low 20 bits.
    pub label: u32,
    /// What stands between it and the packet.
    pub tunnel: Tunnel,
}

/// What stands between the outer IP header and the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// Nothing.
    Ip,
    /// A UDP header (see [`crate::gue`]).
    Udp {
        /// Its source port.
        source_port: Be16,
    },
}

impl Outer {
    /// Bytes that it puts before a packet.
    #[inline(always)]
    pub const fn overhead(&self) -> usize {
        match self.tunnel {
            Tunnel::Ip => self.family.header_len(),
            Tunnel::Udp { .. } => self.family.header_len() + UDP_LEN,
        }
    }

    /// Its protocol number, around a packet of a family.
    #[inline(always)]
    pub const fn protocol(&self, inner: Family) -> u8 {
        match self.tunnel {
            Tunnel::Ip => inner.protocol(),
            Tunnel::Udp { .. } => protocol::UDP,
        }
    }
}
