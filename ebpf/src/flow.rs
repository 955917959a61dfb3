//! A packet's flow: what its slot and its record are found by.

use lb_abi::{
    be::Be16,
    flow::FlowKey,
    hash,
    subject::{GROUPS, PORT, SOURCE},
    tag::{FlowTag, TagKeys},
    vip::{HASH_SOURCE, VipEntry},
};

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

    /// What its record is found by: as [`FlowTag::of`] its key.
    #[inline(always)]
    pub fn tag(&self, keys: &TagKeys) -> FlowTag {
        FlowTag::of_hashes(self.hash(keys[0]), self.hash(keys[1]))
    }

    /// What a VIP remembers it as: as [`lb_abi::subject::of`] has it of its key.
    #[inline(always)]
    pub fn subject(&self, vip: &VipEntry) -> Self {
        if vip.flags & GROUPS == 0 {
            return *self;
        }
        let group = self.group(vip);
        let ports = Ports { destination: Be16::new(vip.vip as u16), ..group.ports };
        Self { ports, ..group }
    }

    /// Hash of that, of a VIP with one of [`GROUPS`]: as [`lb_abi::subject::hash`].
    #[inline(always)]
    pub fn group_hash(&self, vip: &VipEntry) -> u32 {
        self.group(vip).hash(vip.hash_key)
    }

    /// What is hashed of a group's: all flows to a port, if not of a source.
    #[inline(always)]
    fn group(&self, vip: &VipEntry) -> Self {
        let (nobody, none) = (Address::default(), Be16(0));
        let (source, port, protocol) = if vip.flags & HASH_SOURCE != 0 {
            (self.source, none, SOURCE)
        } else {
            (nobody, self.ports.destination, PORT)
        };
        Self { source, destination: nobody, ports: Ports { source: port, destination: none }, protocol }
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

#[cfg(test)]
mod tests {
    use lb_abi::{subject, vip::HASH_PORT};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Both halves find a record's slot alike.
        #[test]
        fn a_subject_is_the_contracts(
            source in any::<[u8; 16]>(),
            ports in any::<[u16; 2]>(),
            is_v4 in any::<bool>(),
            vip in 0u32..512,
            hash_key in any::<[u64; 2]>(),
            flags in prop::sample::select(&[0, HASH_SOURCE, HASH_PORT][..]),
        ) {
            let address = |bytes: [u8; 16]| match bytes {
                [a, b, c, d, ..] if is_v4 => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d],
                bytes => bytes,
            };
            let flow = Flow {
                source: Address::new(address(source)),
                destination: Address::new(address([7; 16])),
                ports: Ports { source: Be16(ports[0]), destination: Be16(ports[1]) },
                protocol: 17,
            };
            let vip = VipEntry { vip, flags, hash_key, ..VipEntry::default() };
            let key = subject::of(&vip, &flow.key());
            prop_assert_eq!(flow.subject(&vip).key(), key);
            let keys = [hash_key, [3, 5]];
            prop_assert_eq!(flow.subject(&vip).tag(&keys), FlowTag::of(&keys, &key));
            let hash = if flags == 0 { flow.hash(hash_key) } else { flow.group_hash(&vip) };
            prop_assert_eq!(hash, subject::hash(hash_key, &key));
        }
    }
}
