//! A packet's flow: what its slot and its record are found by.

use lb_abi::{flow::FlowKey, hash};

use crate::{
    address::Address,
    parse::{Ip, Ports},
};

/// A packet's flow, in registers: the key of its record is made only where a record is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Both ports.
    pub ports: Ports,
    /// IP protocol.
    pub protocol: u8,
}

impl Flow {
    /// Of a packet with ports.
    #[inline(always)]
    pub const fn new(ip: &Ip, ports: Ports) -> Self {
        Self { source: ip.source, destination: ip.destination, ports, protocol: ip.protocol }
    }

    /// Its hash under a VIP's key: as [`hash::flow`] of its key.
    #[inline(always)]
    pub fn hash(&self, key: [u64; 2]) -> u32 {
        let (source, destination) = (self.source.halves(), self.destination.halves());
        let ports = self.ports.source.0 as u32 | (self.ports.destination.0 as u32) << 16;
        hash::spread(key, source.into(), destination.into(), ports, self.protocol)
    }

    /// Key of its record.
    #[inline(always)]
    pub fn key(&self) -> FlowKey {
        FlowKey {
            source: self.source.bytes(),
            destination: self.destination.bytes(),
            source_port: self.ports.source,
            destination_port: self.ports.destination,
            protocol: self.protocol,
            pad: [0; 3],
        }
    }
}
