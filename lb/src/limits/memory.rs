//! How near we are to the memory that we may have, and what is given up first.
//!
//! ```text
//!  used < 85 %   Calm
//!      >= 85 %   Keepalive    idle connections go, on both sides
//!      >= 93 %   Requests     new requests are refused as well
//!     >= 100 %   Connections  and new connections
//! ```
//! The heap is measured ten times a second, not for each request; so it is no fence but a brake. What is used is told by
//! whoever can measure it; this only divides.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What has to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Nothing.
    #[default]
    Calm,
    /// Idle connections.
    Keepalive,
    /// And new requests.
    Requests,
    /// And new connections.
    Connections,
}

/// Shared by all workers.
#[derive(Debug, Default)]
pub struct Memory {
    /// Of the heap, as last measured.
    heap: AtomicU64,
    /// Of pipes, over all workers.
    pipes: AtomicU64,
}

impl Memory {
    /// The heap holds so many bytes.
    pub fn set_heap(&self, bytes: u64) {
        self.heap.store(bytes, Relaxed);
    }

    /// A worker's pipes held `before` bytes and hold `now`.
    pub fn move_pipes(&self, before: u64, now: u64) {
        self.pipes.fetch_add(now.wrapping_sub(before), Relaxed);
    }

    /// Bytes as last measured.
    pub fn used(&self) -> u64 {
        self.heap.load(Relaxed).saturating_add(self.pipes.load(Relaxed))
    }

    /// What has to go where there are `budget` bytes.
    pub fn pressure(&self, budget: u64) -> Pressure {
        let percent = |share: u64| budget / 100 * share;
        match self.used() {
            used if used >= budget => Pressure::Connections,
            used if used >= percent(93) => Pressure::Requests,
            used if used >= percent(85) => Pressure::Keepalive,
            _ => Pressure::Calm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keepalive_goes_first_connections_last() {
        let memory = Memory::default();
        for (heap, pipes, expected) in [
            (0, 0, Pressure::Calm),
            (84_999, 0, Pressure::Calm),
            (80_000, 5_000, Pressure::Keepalive),
            (92_999, 0, Pressure::Keepalive),
            (93_000, 0, Pressure::Requests),
            (50_000, 50_000, Pressure::Connections),
            (u64::MAX, 0, Pressure::Connections),
        ] {
            memory.set_heap(heap);
            memory.move_pipes(0, pipes);
            assert_eq!(memory.pressure(100_000), expected, "{heap} {pipes}");
            memory.move_pipes(pipes, 0);
        }
    }
}
