//! QUIC connection ids that name a server: what a server makes, XDP reads and the daemon configures.
//!
//! ```text
//!  octet     0                 1   2         3 .. 7     8 .. 11       12 ..
//!        config id (3 bits),   server id,    nonce      check bits    the server's own
//!        any (5 bits)          big-endian
//! ```
//! The first eight octets are a plaintext id of QUIC-LB (draft-ietf-quic-load-balancers-21, 3 and 4.1) with a server
//! id of two octets; the check bits are part of its nonce. They are the first four octets of SipHash-1-3, written
//! as eight little-endian ones, of octets 0 to 7 under a key that the VIP's servers share with the balancer. So
//! nobody else can make an id that leads to a server of his choice. Config id 7 is QUIC-LB's "not routable".
//!
//! A nonce never repeats under one server id and key. The server id is plain: whoever watches two paths of one
//! connection learns that it ends at one server, not which connection it is.

use crate::hash::sip13;

/// Octets of an id that is routed, at least.
pub const ID_LEN: usize = 12;
/// Key of the last config id that may be given: 7 means not routable.
pub const CONFIG_MAX: u8 = 6;
/// Pools whose servers one VIP's ids may name.
pub const POOLS_MAX: usize = 8;

/// Entry of map `QUIC`, by VIP index.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuicEntry {
    /// SipHash key by config id; the last one is never given.
    pub keys: [[u64; 2]; 8],
    /// Pools that servers may be of, as [`Server::pool`] says it; the rest is zero.
    pub pools: [u32; POOLS_MAX],
    /// Bit n: config id n has a key.
    pub configs: u32,
    /// Zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<QuicEntry>() == 168);

/// An entry of map `QUIC_SERVERS`, by server id. One word, so that no packet reads half a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Backend id; 0: nobody has this server id.
    pub backend: u16,
    /// [`crate::backend::BackendEntry::generation`], its low half: another one is another backend.
    pub generation: u16,
    /// Which pool the backend is of: a digest of the pool's name, never zero.
    pub pool: u32,
}

impl Server {
    /// From the word in the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { backend: word as u16, generation: (word >> 16) as u16, pool: (word >> 32) as u32 }
    }

    /// As the word in the map.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.backend as u64 | (self.generation as u64) << 16 | (self.pool as u64) << 32
    }
}

/// The part of an id that is read: octets 0 to 7 as a little-endian word, and octets 8 to 11 as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    /// Config id, server id and nonce.
    pub body: u64,
    /// Check bits.
    pub check: u32,
}

impl Id {
    /// Makes one. `first` is octet 0, config id included.
    pub fn new(key: [u64; 2], first: u8, server: u16, nonce: [u8; 5]) -> Self {
        let [high, low] = server.to_be_bytes();
        let [a, b, c, d, e] = nonce;
        let body = u64::from_le_bytes([first, high, low, a, b, c, d, e]);
        Self { body, check: sip13(key, [body]) as u32 }
    }

    /// From its octets.
    pub const fn from_bytes(bytes: [u8; ID_LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Self { body: u64::from_le_bytes([a, b, c, d, e, f, g, h]), check: u32::from_le_bytes([i, j, k, l]) }
    }

    /// As its octets.
    pub const fn to_bytes(self) -> [u8; ID_LEN] {
        let [a, b, c, d, e, f, g, h] = self.body.to_le_bytes();
        let [i, j, k, l] = self.check.to_le_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }

    /// Config id, 0 to 7.
    #[inline(always)]
    pub const fn config(self) -> usize {
        (self.body as usize & 0xff) >> 5
    }

    /// Server id.
    #[inline(always)]
    pub const fn server(self) -> u16 {
        ((self.body >> 8) as u16).swap_bytes()
    }

    /// Whether the check bits are right under a key.
    #[inline(always)]
    pub fn verifies(self, key: [u64; 2]) -> bool {
        sip13(key, [self.body]) as u32 == self.check
    }
}

/// Index of map `QUIC_EVENTS`: what led a datagram of a QUIC VIP.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuicEvent {
    /// Its connection id, to the server that the id names.
    ById = 0,
    /// The hash, as it should: Initial, 0-RTT, and versions that are not known.
    Opening = 1,
    /// The hash: the id is too short, of a config without key, or its check bits are wrong.
    InvalidId = 2,
    /// The hash: nobody of this VIP's pools has the server id.
    UnknownServer = 3,
    /// The hash: the server is down.
    ServerDown = 4,
}

impl QuicEvent {
    /// All, in index order.
    pub const ALL: [Self; 5] =
        [Self::ById, Self::Opening, Self::InvalidId, Self::UnknownServer, Self::ServerDown];

    /// The event of a number; what is none is the last.
    #[inline(always)]
    pub const fn of_number(number: u32) -> Self {
        match number {
            0 => Self::ById,
            1 => Self::Opening,
            2 => Self::InvalidId,
            3 => Self::UnknownServer,
            _ => Self::ServerDown,
        }
    }

    /// Name in metrics and `lb show`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ById => "by-id",
            Self::Opening => "opening",
            Self::InvalidId => "invalid-id",
            Self::UnknownServer => "unknown-server",
            Self::ServerDown => "server-down",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_octets() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let id = Id::new(key, 0b010_01011, 0x1234, [1, 2, 3, 4, 5]);
        let bytes = id.to_bytes();
        assert_eq!(bytes[..8], [0b010_01011, 0x12, 0x34, 1, 2, 3, 4, 5]);
        assert_eq!(Id::from_bytes(bytes), id);
        assert_eq!((id.config(), id.server()), (2, 0x1234));
        assert!(id.verifies(key));
    }

    #[test]
    fn every_bit_counts() {
        let key = [1, 2];
        let bytes = Id::new(key, 0, 7, [0; 5]).to_bytes();
        for bit in 0..ID_LEN * 8 {
            let mut other = bytes;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!Id::from_bytes(other).verifies(key), "bit {bit}");
        }
        assert!(!Id::from_bytes(bytes).verifies([1, 3]));
    }

    #[test]
    fn an_event_survives_its_number() {
        assert!(QuicEvent::ALL.iter().all(|event| QuicEvent::of_number(*event as u32) == *event));
    }

    #[test]
    fn a_server_survives_its_word() {
        let server = Server { backend: 0x1234, generation: 0x5678, pool: 0x9abc_def0 };
        assert_eq!(Server::from_word(server.to_word()), server);
    }
}
