//! `[limits]`: what holds for all listeners.

use std::time::Duration;

use super::BurstRate;

/// `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Downstream connections over all workers.
    pub connections: usize,
    /// Downstream connections of one address.
    pub connections_per_ip: usize,
    /// From accept or the end of the last exchange's first byte to the end of the head.
    pub head_timeout: Duration,
    /// Bytes of a head, request line included.
    pub head_bytes: usize,
    /// Fields in a head.
    pub head_fields: usize,
    /// Silence in either direction.
    pub idle_timeout: Duration,
    /// One attempt at one backend.
    pub connect_timeout: Duration,
    /// Bytes of a request's body; [`super::BODY_BYTES_ANY`]: any number.
    pub body_bytes: u64,
    /// Requests of one client address; `None`: as many as it likes.
    pub rate: Option<BurstRate>,
    /// Heap and pipes.
    pub memory: MemoryLimit,
    /// Of HTTP/2.
    pub http2: Http2Limits,
}

/// `[limits.h2]`: what one connection of HTTP/2 may. But for `streams` and `resets_in_all`, frames that may come at once; half as
/// many may come each second for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Limits {
    /// Requests of a client at once.
    pub streams: u32,
    /// RST_STREAM from the peer (CVE-2023-44487).
    pub resets: u32,
    /// The same, as long as the connection lives.
    pub resets_in_all: u32,
    /// RST_STREAM that we send for what the peer did wrong (CVE-2025-8671).
    pub resets_emitted: u32,
    /// PING, answers too, beyond one for each DATA frame that we send: who measures the path sends as many.
    pub pings: u32,
    /// SETTINGS, answers too.
    pub settings: u32,
    /// DATA that carries nothing and ends nothing.
    pub empty_data: u32,
    /// HEADERS beyond four for each that we send.
    pub heads: u32,
    /// CONTINUATION (CVE-2024-27316); of one header block a fifth of it.
    pub continuations: u32,
    /// WINDOW_UPDATE beyond four for each DATA frame that we send and one for each head that comes.
    pub window_updates: u32,
    /// PRIORITY and PRIORITY_UPDATE (RFC 9218).
    pub priorities: u32,
    /// Frames of no known kind, or of a kind that comes once.
    pub unknown: u32,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            streams: 100,
            resets: 100,
            resets_in_all: 10_000,
            resets_emitted: 500,
            pings: 100,
            settings: 50,
            empty_data: 100,
            heads: 300,
            continuations: 100,
            window_updates: 1_000,
            priorities: 500,
            unknown: 100,
        }
    }
}

/// `limits.memory`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryLimit {
    /// Three quarters of what the host or its control group has; settled at start.
    #[default]
    Auto,
    /// So many bytes.
    Bytes(u64),
    /// `"none"`.
    Unlimited,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 200_000,
            connections_per_ip: 1024,
            head_timeout: Duration::from_secs(10),
            head_bytes: 32 << 10,
            head_fields: 100,
            idle_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(3),
            body_bytes: 1 << 30,
            rate: None,
            memory: MemoryLimit::Auto,
            http2: Http2Limits::default(),
        }
    }
}
