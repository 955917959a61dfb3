//! Fragments: they go to the VIP of their address that hashes by source, if there is one.
//!
//! Only the first fragment of a packet has its ports, and it need not come first. So the rule is one for all of
//! them: a fragment is forwarded by address and protocol, ports unseen, where one VIP alone has that address and
//! protocol and hashes by source; all fragments of a packet have one source, and go to one backend. It may thus get
//! fragments to ports that are not the VIP's, and answers them itself. All other fragments to an address of ours
//! are dropped by name.

use lb_abi::{
    be::Be16,
    vip::{HASH_SOURCE, VipEntry, VipKey},
};

use crate::{
    env::Env,
    numbers::{Family, IPV6_LEN},
    packet::Packet,
    parse::{Ip, Ports},
    select::Stage,
};

/// A fragment has no ports.
pub const PORTS: Ports = Ports { source: Be16(0), destination: Be16(0) };

/// It neither opens nor closes a flow that could be seen.
pub const STAGE: Stage = Stage::Running;

/// The VIP that takes it, if there is one.
#[inline(always)]
pub fn vip<'e, P: Packet, E: Env>(packet: &P, env: &'e E, ip: &Ip) -> Option<&'e VipEntry> {
    let protocol = match ip.family {
        Family::V4 => ip.protocol,
        // Its header says what follows in its first byte (RFC 8200, 4.5).
        Family::V6 => {
            let [first] = packet.load(ip.at + IPV6_LEN)?;
            let [protocol, _] = first.to_ne_bytes();
            protocol
        }
    };
    let vip = env.vip(&VipKey::fragments(ip.destination.bytes(), protocol))?;
    if vip.flags & HASH_SOURCE != 0 { Some(vip) } else { None }
}
