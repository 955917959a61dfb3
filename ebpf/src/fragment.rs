//! Fragments: they go to the VIP of their address that hashes by source, if there is one.
//!
//! Only the first fragment of a packet has its ports, and it need not come first. So the rule is one for all of
//! them: a fragment is forwarded by address and protocol, ports unseen, where one VIP alone has that address and
//! protocol and hashes by source; all fragments of a packet have one source, and go to one backend. It may thus get
//! fragments to ports that are not the VIP's, and answers them itself. All other fragments to an address of ours
//! are dropped by name.

use lb_abi::{be::Be16, vip::FRAGMENTS};

use crate::{
    directory::Wanted,
    flow::Flow,
    numbers::{Family, IPV6_LEN},
    packet::Packet,
    parse::{Ip, Ports},
    select::Stage,
};

/// It neither opens nor closes a flow that could be seen.
pub const STAGE: Stage = Stage::Running;

/// Its flow, which has no ports.
#[inline(always)]
pub fn flow<P: Packet>(packet: &P, ip: &Ip) -> Flow {
    let protocol = match ip.family {
        Family::V4 => ip.protocol,
        // Its header says what follows in its first byte (RFC 8200, 4.5); where that is cut off, nobody takes it.
        Family::V6 => packet.load(ip.at + IPV6_LEN).map_or(0, |[first]: [u16; 1]| first.to_ne_bytes()[0]),
    };
    let ports = Ports { source: Be16(0), destination: Be16(0) };
    Flow { source: ip.source, destination: ip.destination, ports, protocol }
}

/// What the VIP that takes it is looked up by.
#[inline(always)]
pub const fn wanted(flow: &Flow) -> Wanted {
    Wanted::new(flow.destination, Be16::new(flow.protocol as u16), FRAGMENTS)
}
