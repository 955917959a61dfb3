//! QUIC: what goes on goes by connection id, to the server that made the id.
//!
//! ```text
//!  long header (RFC 9000, 17.2)     flags | version | length of id | id ...
//!  short header (RFC 9000, 17.3)    flags | id ...
//! ```
//! Handshake packets and short headers carry an id that a server made; ids of Initial and 0-RTT packets are the
//! client's own, and these go by hash, as all does that belongs to no version we know. Versions 1 (RFC 9000) and 2
//! (RFC 9369) number the types differently. The fixed bit is not looked at: clients may grease it (RFC 9287).
//!
//! A client that changes its address thus stays with its server. The flow's record, if there is one, is not looked
//! at: whoever knows the key of the check bits says where the packet goes, and nobody else can.

use lb_abi::{
    backend::{DOWN, PRESENT},
    quic::{Id, QuicEntry, QuicEvent},
};

use crate::{env::Env, packet::Packet, parse::Ip};

/// Bytes of a UDP header.
const UDP_LEN: usize = 8;

const LONG: u8 = 0x80;
const VERSION_1: u32 = 1;
const VERSION_2: u32 = 0x6b33_43cf;

/// Where the payload of a datagram begins.
#[inline(always)]
pub fn payload_at(ip: &Ip) -> usize {
    ip.at + ip.family.header_len() + UDP_LEN
}

/// What leads a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Id of the backend that its connection id names; 0: it goes by hash.
    pub backend: u16,
    /// What it is counted as.
    pub event: QuicEvent,
}

impl Named {
    /// As one number.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.backend as u64 | (self.event as u64) << 16
    }

    /// From one.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { backend: word as u16, event: QuicEvent::of_number((word >> 16) as u32) }
    }
}

/// Who the connection id names of a datagram whose payload begins at `at`. Reads only.
#[inline(always)]
pub fn server<P: Packet, E: Env>(packet: &P, env: &E, at: usize, vip: u32) -> Named {
    match find(packet, env, at, vip) {
        Ok(backend) => Named { backend, event: QuicEvent::ById },
        Err(event) => Named { backend: 0, event },
    }
}

#[inline(always)]
fn find<P: Packet, E: Env>(packet: &P, env: &E, at: usize, vip: u32) -> Result<u16, QuicEvent> {
    let id = read(packet, at)?;
    let entry = env.quic(vip).ok_or(QuicEvent::InvalidId)?;
    if !is_ours(entry, id) {
        return Err(QuicEvent::InvalidId);
    }
    let server = env.server(id.server()).ok_or(QuicEvent::UnknownServer)?;
    let backend = env.backend(server.backend).ok_or(QuicEvent::UnknownServer)?;
    let is_member = server.pool != 0 && entry.pools.contains(&server.pool);
    let is_same = backend.generation as u16 == server.generation && backend.flags & PRESENT != 0;
    if !is_member || !is_same {
        return Err(QuicEvent::UnknownServer);
    }
    if backend.flags & DOWN != 0 { Err(QuicEvent::ServerDown) } else { Ok(server.backend) }
}

/// The id of the datagram whose payload begins at `at`.
#[inline(always)]
fn read<P: Packet>(packet: &P, at: usize) -> Result<Id, QuicEvent> {
    let [first, version_high, version_low] = packet.load(at).ok_or(QuicEvent::InvalidId)?;
    let [flags, version_first] = first.to_ne_bytes();
    if flags & LONG == 0 {
        return read_short(packet, at);
    }
    // The version begins at an odd byte: its middle ones stand in one word.
    let [version_second, version_third] = version_high.to_ne_bytes();
    let [version_fourth, id_len] = version_low.to_ne_bytes();
    let version = u32::from_be_bytes([version_first, version_second, version_third, version_fourth]);
    let handshake = match version {
        VERSION_1 => 2,
        VERSION_2 => 3,
        _ => return Err(QuicEvent::Opening),
    };
    if flags >> 4 & 3 != handshake {
        return Err(QuicEvent::Opening);
    }
    if (id_len as usize) < lb_abi::quic::ID_LEN {
        return Err(QuicEvent::InvalidId);
    }
    let [a, b, c, d, e, f] = packet.load(at + 6).ok_or(QuicEvent::InvalidId)?;
    Ok(Id { body: quad(a, b, c, d), check: quad(e, f, 0, 0) as u32 })
}

/// Its id begins at the odd byte 1: words are read from 0 on, and shifted.
#[inline(always)]
fn read_short<P: Packet>(packet: &P, at: usize) -> Result<Id, QuicEvent> {
    let [a, b, c, d, e, f, g] = packet.load(at).ok_or(QuicEvent::InvalidId)?;
    let (front, back) = (quad(a, b, c, d), quad(e, f, g, 0));
    Ok(Id { body: front >> 8 | back << 56, check: (back >> 8) as u32 })
}

/// Four words of the wire, as the little-endian number of their bytes.
#[inline(always)]
const fn quad(a: u16, b: u16, c: u16, d: u16) -> u64 {
    u16::from_le(a) as u64
        | (u16::from_le(b) as u64) << 16
        | (u16::from_le(c) as u64) << 32
        | (u16::from_le(d) as u64) << 48
}

/// Whether one of the VIP's servers made it.
#[inline(always)]
fn is_ours(entry: &QuicEntry, id: Id) -> bool {
    let config = id.config();
    let Some(key) = entry.keys.get(config) else { return false };
    entry.configs >> config & 1 != 0 && id.verifies(*key)
}
