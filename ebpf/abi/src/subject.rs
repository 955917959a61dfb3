//! What of a packet chooses its slot and is remembered of it: the whole flow, or less.
//!
//! A VIP that hashes by less than the flow balances groups of flows: all flows of a client, or all flows to a
//! port. Their records are the group's too, so that a fragment, which has no ports, is led where its packet's
//! other fragments are. A group's key names its VIP by counter index, and by a protocol that no flow has.

use crate::{
    be::Be16,
    flow::FlowKey,
    hash,
    vip::{HASH_PORT, HASH_SOURCE, VipEntry},
};

/// [`FlowKey::protocol`] of all flows of a source: reserved for IPv6 hop-by-hop options (IANA), which no VIP has.
pub const SOURCE: u8 = 0;
/// [`FlowKey::protocol`] of all flows to a port: reserved (IANA).
pub const PORT: u8 = 255;

/// Flags of a VIP that tells groups apart, and not flows.
pub const GROUPS: u32 = HASH_SOURCE | HASH_PORT;

/// What a VIP remembers a flow as.
///
/// `source`: the client's address; `port`: the destination port, in place of the source port. Beside it only the
/// VIP's index, in place of the destination port. All else is zero.
#[inline(always)]
pub fn of(vip: &VipEntry, flow: &FlowKey) -> FlowKey {
    const NONE: FlowKey = FlowKey {
        source: [0; 16],
        destination: [0; 16],
        source_port: Be16(0),
        destination_port: Be16(0),
        protocol: 0,
        pad: [0; 3],
    };
    let destination_port = Be16::new(vip.vip as u16);
    if vip.flags & HASH_SOURCE != 0 {
        FlowKey { source: flow.source, destination_port, protocol: SOURCE, ..NONE }
    } else if vip.flags & HASH_PORT != 0 {
        FlowKey { source_port: flow.destination_port, destination_port, protocol: PORT, ..NONE }
    } else {
        *flow
    }
}

/// Counter index of the VIP that a group belongs to; none for a flow, which names its VIP by address and port.
#[inline(always)]
pub const fn vip_of_group(subject: &FlowKey) -> Option<u32> {
    match subject.protocol {
        SOURCE | PORT => Some(subject.destination_port.host() as u32),
        _ => None,
    }
}

/// Hash of a subject under its VIP's key. For a group it covers the client's address, or the port, alone: not the VIP's
/// index, which is another one on another box.
#[inline(always)]
pub fn hash(key: [u64; 2], subject: &FlowKey) -> u32 {
    match subject.protocol {
        SOURCE | PORT => hash::flow(key, &FlowKey { destination_port: Be16(0), ..*subject }),
        _ => hash::flow(key, subject),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(source: u8, port: u16, protocol: u8) -> FlowKey {
        let mut flow = FlowKey { destination_port: Be16::new(port), protocol, ..FlowKey::default() };
        (flow.source[15], flow.destination[15], flow.source_port) =
            (source, 1, Be16::new(u16::from(source) + 9));
        flow
    }

    fn vip(vip: u32, flags: u32) -> VipEntry {
        VipEntry { vip, flags, ..VipEntry::default() }
    }

    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    #[test]
    fn a_source_is_its_address_whatever_else_differs() {
        let vip = vip(7, HASH_SOURCE);
        let one = of(&vip, &flow(1, 80, 6));
        assert_eq!(one, of(&vip, &flow(1, 53, 17)));
        assert_eq!(vip_of_group(&one), Some(7));
        assert_ne!(one, of(&vip, &flow(2, 80, 6)));
        let other = of(&VipEntry { vip: 8, ..vip }, &flow(1, 80, 6));
        assert_ne!(one, other, "two VIPs remember it apart");
        assert_eq!(hash(KEY, &one), hash(KEY, &other), "an index says nothing on another box");
        assert_ne!(hash(KEY, &one), hash(KEY, &of(&vip, &flow(2, 80, 6))));
    }

    #[test]
    fn a_port_is_its_number_whatever_else_differs() {
        let vip = vip(7, HASH_PORT);
        let one = of(&vip, &flow(1, 5060, 17));
        assert_eq!(one, of(&vip, &flow(2, 5060, 6)));
        assert_ne!(one, of(&vip, &flow(1, 5061, 17)));
        assert_eq!(vip_of_group(&one), Some(7));
        let other = of(&VipEntry { vip: 8, ..vip }, &flow(1, 5060, 17));
        assert_eq!(hash(KEY, &one), hash(KEY, &other));
        assert_ne!(hash(KEY, &one), hash(KEY, &of(&vip, &flow(1, 5061, 17))));
    }

    #[test]
    fn a_flow_stays_a_flow() {
        let flow = flow(1, 80, 6);
        assert_eq!(of(&vip(7, 0), &flow), flow);
        assert_eq!(vip_of_group(&flow), None);
        assert_eq!(hash([1, 2], &flow), hash::flow([1, 2], &flow));
    }
}
