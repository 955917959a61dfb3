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
        }
    }
}
