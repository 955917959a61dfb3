//! SYN cookies for the listeners of this box: under a flood XDP answers SYNs in the kernel's place.
//!
//! The kernel answers with cookies itself once a listener's queue is full; what is saved here is the way there: a
//! socket buffer, the stack and its answer for every forged SYN. It stays the kernel that makes the cookie and judges
//! the ACK that brings it back, so nothing is kept here, a client cannot tell who answered, and every core, listener
//! and later program of this box takes every cookie.
//!
//! ```text
//! ingress, nat: for no VIP, SYN alone, and more of them in this tick than SYNS_PER_TICK -> lb_cookie:
//!   sender is a host -> listener (of ours, that takes cookies; of an address that is this box's) ->
//!   would the kernel itself send a cookie now? -> SYN-ACK, out the way it came
//! ```
//! Whatever of that says no leaves the SYN to the kernel, untouched. When the kernel would: `net.ipv4.tcp_syncookies`
//! is 2, or it is 1 and the queue of the socket that the flow hashes to is full, and its accept queue is not.
//!
//! The answer carries one option, the MSS, as the cookie has no room for more: a connection that comes of it has no
//! window scaling, no selective acknowledgements and no timestamps. (The kernel's own cookies hide those in a
//! timestamp, whose offset is its secret.) It goes back to the Ethernet address that the SYN came from: no route is
//! asked. Nor is a packet filter of this box, which meets the connection with its ACK.

use lb_abi::reason::Reason;

use crate::{
    checksum::{self, Sum},
    encap,
    env::Env,
    flow::Flow,
    icmp, listener,
    numbers::{TCP_LEN, protocol},
    outer::{Outer, Tunnel},
    packet::Packet,
    parse::{Ip, Link, Ports, TcpFlags, Transport},
    verdict::{Outcome, Verdict},
};

/// What `lb_cookie` asks beside.
pub trait CookieEnv: Env {
    /// The sequence number with which the kernel would answer a SYN now, and the listener takes cookies and is this
    /// box's to answer for.
    fn cookie(&self, syn: &Syn) -> Option<u32>;

    /// Longest IP packet that the interface takes by which the frame came in.
    fn mtu(&self) -> u16;
}

/// A SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syn {
    /// Its plain IP header.
    pub ip: Ip,
    /// Its ports.
    pub ports: Ports,
    /// Bytes of its TCP header with options: 20 to 60, and not more than there are.
    pub header_len: usize,
}

/// Bytes of the answer's TCP header: the MSS option is its only one.
const ANSWER_LEN: usize = TCP_LEN + 4;

/// The first receive window, as Linux has it for an MSS of 1460 (`tcp_select_initial_window`, v6.18). The kernel's first
/// segment says the real one; until then a client sends no more than ten segments (RFC 6928).
const WINDOW: u16 = 64_240;

/// Answers a SYN of a flood, or leaves it to the kernel.
#[inline(always)]
pub fn cookie<P: Packet, E: CookieEnv>(packet: &mut P, env: &E) -> Verdict {
    let outcome = match judge(packet, env) {
        Ok(outcome) => outcome,
        Err(reason) => Outcome::stopped(reason),
    };
    env.count(outcome.reason);
    outcome.verdict
}

#[inline(always)]
fn judge<P: Packet, E: CookieEnv>(packet: &mut P, env: &E) -> Result<Outcome, Reason> {
    let link = Link::parse(packet)?;
    let family = link.family().ok_or(Reason::NotOurs)?;
    let ip = Ip::parse(packet, link.len, family)?;
    let syn = syn(packet, &ip).ok_or(Reason::NotOurs)?;
    match answer(packet, env, &link, &syn) {
        Some(answered) => {
            answered?;
            Ok(Outcome { reason: Reason::SynCookie, verdict: Verdict::Transmit })
        }
        None => {
            let meta = env.meta().ok_or(Reason::Abi)?;
            Ok(listener::deliver(env, meta.flags, &Flow::new(&ip, syn.ports)))
        }
    }
}

/// None: there is no answer, and nothing was changed.
#[inline(always)]
fn answer<P: Packet, E: CookieEnv>(
    packet: &mut P,
    env: &E,
    link: &Link,
    syn: &Syn,
) -> Option<Result<(), Reason>> {
    let Syn { ip, .. } = syn;
    // To nobody else's address, and no more than one buffer: the answer has no second one.
    let len = packet.total_len();
    if !icmp::is_host(ip.source) || ip.source == ip.destination || len != packet.len() {
        return None;
    }
    let header_len = ip.family.header_len();
    let [_, _, s0, s1] = packet.load(ip.at + header_len)?;
    let cookie = env.cookie(syn)?;
    let mss = env.mtu().saturating_sub((header_len + TCP_LEN) as u16);
    // Everything is written anew: what the frame is too long by goes in front, what it is short of comes from there.
    let excess = len as i32 - (link.len + header_len + ANSWER_LEN) as i32;
    let addresses = Link::addresses(packet).ok()?;
    packet.move_head(excess)?;
    let acknowledged = u32::from_be(double(s0, s1)).wrapping_add(1);
    Some(write(packet, link, addresses, syn, [cookie, acknowledged], mss).ok_or(Reason::EncapHeadroom))
}

/// A SYN and nothing else.
#[inline(always)]
fn syn<P: Packet>(packet: &P, ip: &Ip) -> Option<Syn> {
    match Transport::parse(packet, ip) {
        Ok(Transport::Tcp(ports, flags)) if flags.opens() => {
            let [last] = packet.load(ip.at + ip.family.header_len() + 12)?;
            let header_len = (u16::from_be(last) >> 12) as usize * 4;
            Some(Syn { ip: *ip, ports, header_len })
        }
        _ => None,
    }
}

#[inline(always)]
fn write<P: Packet>(
    packet: &mut P,
    link: &Link,
    [a, b, c, d, e, f]: [u16; 6],
    syn: &Syn,
    [cookie, acknowledged]: [u32; 2],
    mss: u16,
) -> Option<()> {
    let (ip, family) = (&syn.ip, syn.ip.family);
    encap::write_link(packet, &[d, e, f, a, b, c], &link.tags, link.len, family.ethertype())?;
    let (source, destination) = (ip.destination, ip.source);
    let ends = Outer { family, source, destination, label: 0, tunnel: Tunnel::Ip };
    let length = (family.header_len() + ANSWER_LEN) as u16;
    encap::write_ip(packet, link.len, &ends, 0, protocol::TCP, length)?;
    let ([c0, c1], [a0, a1]) = (halves(cookie), halves(acknowledged));
    let flags = u16::from_ne_bytes([(ANSWER_LEN as u8 / 4) << 4, TcpFlags::SYN | TcpFlags::ACK]);
    let option = u16::from_ne_bytes([2, 4]);
    let Ports { source: far, destination: near } = syn.ports;
    let mut header = [near.0, far.0, c0, c1, a0, a1, flags, WINDOW.to_be(), 0, 0, option, mss.to_be()];
    let sum = checksum::pseudo(source, destination, protocol::TCP, (ANSWER_LEN as u16).to_be());
    header[8] = !sum_of(sum, &header).folded();
    packet.store(link.len + family.header_len(), header)
}

#[inline(always)]
const fn sum_of(sum: Sum, words: &[u16; 12]) -> Sum {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *words;
    let sum = sum.word(a).word(b).word(c).word(d).word(e).word(f);
    sum.word(g).word(h).word(i).word(j).word(k).word(l)
}

/// Two words that follow one another on the wire, as one.
#[inline(always)]
const fn double(first: u16, second: u16) -> u32 {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// As two words of the wire.
#[inline(always)]
const fn halves(number: u32) -> [u16; 2] {
    let [a, b, c, d] = number.to_be_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}
