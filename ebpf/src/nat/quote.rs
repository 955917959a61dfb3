//! ICMP errors about translated flows: they quote a packet that we sent, and reach whoever sent it to us.
//!
//! The error and the quoted packet go opposite ways, so the quote turned round is the key of the entry by which
//! the error is translated. Its sender is hidden with the rest: toward a client an error comes from the VIP, toward
//! a backend from the flow's own source, as nf_nat has it (`nf_nat_icmp_reply_translation`, Linux v6.18).

use lb_abi::reason::Reason;

use super::{NatCell as _, NatEnv, Passage, Table};
use crate::{icmp, packet::Packet, parse::Ip};

/// Where the quoted packet's IP header begins.
#[inline(always)]
pub(super) const fn at(ip: &Ip) -> usize {
    ip.at + ip.family.header_len() + icmp::ERROR_LEN
}

/// Finds the entry by which an ICMP error is translated; it and its key are left in `passage`. False: there is none.
#[inline(never)]
pub(super) fn find<P: Packet, E: NatEnv>(
    packet: &P,
    env: &E,
    ip: &Ip,
    passage: &mut Passage,
) -> Result<bool, Reason> {
    passage.key = icmp::quoted(packet, ip)?.key();
    let cell = match env.nat(Table::Established, &passage.key) {
        None => env.nat(Table::Opening, &passage.key),
        cell => cell,
    };
    if let Some(cell) = &cell {
        cell.read(&mut passage.entry);
    }
    Ok(cell.is_some())
}
