//! ICMP errors about translated flows: they quote a packet that we sent, and reach whoever sent it to us.
//!
//! The error and the quoted packet go opposite ways, so the quote turned round is the key of the entry by which
//! the error is translated. Its sender is hidden with the rest: toward a client an error comes from the VIP, toward
//! a backend from the flow's own source, as nf_nat has it (`nf_nat_icmp_reply_translation`, Linux v6.18).

use lb_abi::{flow::FlowKey, reason::Reason};

use super::{
    NatCell as _, NatEnv, Passage, Table,
    rewrite::{self, Ends},
    unknown,
};
use crate::{
    address::Address,
    numbers::{Family, protocol},
    packet::Packet,
    parse::Ip,
};

/// Bytes of an ICMP error's own header.
const HEADER_LEN: usize = 8;
/// Least that an error quotes of a transport header (RFC 792).
const QUOTED_LEN: usize = 8;

/// What an error quotes.
struct Quote {
    ends: Ends,
    protocol: u8,
}

/// Where the quoted packet's IP header begins.
#[inline(always)]
pub(super) const fn at(ip: &Ip) -> usize {
    ip.at + ip.family.header_len() + HEADER_LEN
}

/// Finds the entry by which an ICMP error is translated; it and its key are left in `passage`. Everything else that
/// ICMP carries is the kernel's.
#[inline(never)]
pub(super) fn find<P: Packet, E: NatEnv>(
    packet: &P,
    env: &E,
    ip: &Ip,
    passage: &mut Passage,
) -> Result<(), Reason> {
    let quote = Quote::parse(packet, ip).ok_or(Reason::NotOurs)?;
    let turned = quote.ends.turned();
    passage.key = FlowKey {
        source: turned.source.bytes(),
        destination: turned.destination.bytes(),
        source_port: turned.ports.source,
        destination_port: turned.ports.destination,
        protocol: quote.protocol,
        pad: [0; 3],
    };
    let cell = match env.nat(Table::Established, &passage.key) {
        None => env.nat(Table::Opening, &passage.key),
        cell => cell,
    };
    let Some(cell) = cell else { return Err(unknown(env, ip)) };
    cell.read(&mut passage.entry);
    Ok(())
}

impl Quote {
    /// Of the ICMP message of a packet; none if it is no error, or quotes what we never send.
    #[inline(always)]
    fn parse<P: Packet>(packet: &P, ip: &Ip) -> Option<Self> {
        let [kind] = packet.load(ip.at + ip.family.header_len())?;
        if !is_error(ip.family, kind.to_ne_bytes()[0]) {
            return None;
        }
        let at = at(ip);
        let transport_at = at + ip.family.header_len();
        if transport_at + QUOTED_LEN > ip.at + ip.length as usize {
            return None;
        }
        let (source, destination, number) = match ip.family {
            Family::V4 => {
                let [first, _, _, fragment, life, _, s0, s1, d0, d1] = packet.load(at)?;
                if first.to_ne_bytes()[0] != 0x45 || u16::from_be(fragment) & 0x3fff != 0 {
                    return None;
                }
                (Address::v4([s0, s1]), Address::v4([d0, d1]), life.to_ne_bytes()[1])
            }
            Family::V6 => {
                let [first, _, _, next] = packet.load(at)?;
                if u16::from_be(first) >> 12 != 6 {
                    return None;
                }
                let source = Address::v6(packet.load(at + 8)?);
                (source, Address::v6(packet.load(at + 24)?), next.to_ne_bytes()[0])
            }
        };
        if number != protocol::TCP && number != protocol::UDP {
            return None;
        }
        let ports = rewrite::ports(packet, transport_at)?;
        Some(Self { ends: Ends { source, destination, ports }, protocol: number })
    }
}

/// Unreachable, time exceeded, parameter problem; in IPv6 also packet too big (RFC 792, RFC 4443).
#[inline(always)]
const fn is_error(family: Family, kind: u8) -> bool {
    match family {
        Family::V4 => matches!(kind, 3 | 11 | 12),
        Family::V6 => matches!(kind, 1..=4),
    }
}
