//! What one worker counts. Indexes are the ids of the snapshot; backends are by [`BackendId`] and survive it.

use super::{Counter, Gauge};
use crate::model::{BackendId, ListenerId, reason::CloseReason};

/// Listeners that have counters: as many as a config may hold, since each has an address.
pub const LISTENERS_MAX: usize = lb_abi::bounds::STEER_LISTENERS_MAX as usize;
/// Backends that have counters, id 0 included: as many as ids are given out.
pub const BACKENDS_MAX: usize = lb_abi::bounds::BACKENDS_MAX as usize;

/// All counters of one worker.
#[derive(Debug)]
pub struct WorkerMetrics {
    /// Loop turns.
    pub turns: Counter,
    /// `io_uring_enter` calls.
    pub enters: Counter,
    /// Completions reaped.
    pub completions: Counter,
    /// Completions with an unknown token, or after their operation ended: always 0 in a sound program.
    pub completions_stray: Counter,
    /// Bytes moved by splice(2).
    pub spliced_bytes: Counter,
    /// Relays that left user space.
    pub splices_started: Counter,
    /// Connections whose TLS the kernel seals from then on.
    pub kernel_tls: Counter,
    /// Splices refused for want of a pipe; the copy path went on.
    pub pipes_refused: Counter,
    /// Snapshots taken over.
    pub snapshots: Counter,
    /// Seconds since its last turn, once they are too many. Control alone writes this one.
    pub stuck_seconds: Gauge,
    /// Bytes of all workers' memory, as this one last saw it; 0 without a limit.
    pub memory_used: Gauge,
    /// What has to go: `limits::Pressure` as a number.
    pub memory_pressure: Gauge,
    /// Records of the access log that found their queue full.
    pub log_dropped: Counter,
    /// Records that sampling left out.
    pub log_skipped: Counter,
    /// Sticky cookies that were not made with their pool's secret.
    pub cookies_refused: Counter,
    /// By listener.
    pub listeners: Box<[ListenerMetrics]>,
    /// By backend.
    pub backends: Box<[BackendMetrics]>,
    /// Ends of connections and exchanges that were not well, by reason.
    pub reasons: Reasons,
    /// Datagrams that went nowhere, by reason.
    pub datagrams_dropped: Reasons,
}

/// Counters of one listener on one worker.
#[derive(Debug, Default)]
pub struct ListenerMetrics {
    /// Connections accepted, or flows of datagrams begun.
    pub accepted: Counter,
    /// Of those, how many came in on this worker's core.
    pub accepted_on_core: Counter,
    /// Connections open.
    pub open: Gauge,
    /// Requests with a complete head.
    pub requests: Counter,
    /// Responses by status class, 1xx first; those we made ourselves included.
    pub responses: [Counter; 5],
    /// Requests sent to another backend after one had them.
    pub retries: Counter,
    /// Requests that were not, as the route's budget was spent.
    pub retries_refused: Counter,
    /// Handshakes of TLS that were done.
    pub handshakes: Counter,
    /// Of those, how many went on with a former session.
    pub resumptions: Counter,
    /// Connections whose client sent data before hands were shaken, which were taken.
    pub early_accepted: Counter,
    /// The same, which were not: what they say comes again.
    pub early_rejected: Counter,
    /// Requests that came so and went at once.
    pub early_passed: Counter,
    /// Requests that came so and waited until hands were shaken.
    pub early_held: Counter,
    /// Connections that changed to another protocol.
    pub upgrades: Counter,
    /// Of those, how many are open.
    pub tunnels: Gauge,
    /// Bytes from clients.
    pub received_bytes: Counter,
    /// Bytes to clients.
    pub sent_bytes: Counter,
    /// Datagrams from clients.
    pub received_datagrams: Counter,
    /// Datagrams to clients.
    pub sent_datagrams: Counter,
    /// Ends of its connections and requests that were not well, by reason.
    pub reasons: Reasons,
}

/// By reason.
#[derive(Debug)]
pub struct Reasons([Counter; CloseReason::COUNT]);

impl Reasons {
    /// Counter of a reason.
    #[inline]
    pub fn of(&self, reason: CloseReason) -> &Counter {
        &self.0[reason as usize]
    }
}

impl Default for Reasons {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

/// Counters of one backend on one worker.
#[derive(Debug, Default)]
pub struct BackendMetrics {
    /// Connections dialled with success.
    pub connects: Counter,
    /// Connections refused, unanswered or unreachable.
    pub connect_failures: Counter,
    /// Exchanges that took a kept connection.
    pub reuses: Counter,
    /// Of those, how many took one that some worker had to spare.
    pub shelf_reuses: Counter,
    /// Requests that were not sent here a second time: as many as may were under way.
    pub retries_refused: Counter,
    /// Exchanges or relays begun.
    pub exchanges: Counter,
    /// Exchanges or relays going on.
    pub in_flight: Gauge,
    /// Idle connections kept, without those on the shelf.
    pub idle: Gauge,
    /// Of pools with `outlier` only: exchanges that were answered.
    pub answers: Counter,
    /// The same: connections refused, exchanges broken off or timed out, answers 5xx.
    pub errors: Counter,
    /// The same: errors since the last answer.
    pub error_run: Gauge,
    /// The same: microseconds to those answers together.
    pub answer_us: Counter,
}

impl WorkerMetrics {
    /// All zero.
    pub fn new() -> Self {
        Self {
            turns: Counter::default(),
            enters: Counter::default(),
            completions: Counter::default(),
            completions_stray: Counter::default(),
            spliced_bytes: Counter::default(),
            splices_started: Counter::default(),
            kernel_tls: Counter::default(),
            pipes_refused: Counter::default(),
            snapshots: Counter::default(),
            stuck_seconds: Gauge::default(),
            memory_used: Gauge::default(),
            memory_pressure: Gauge::default(),
            log_dropped: Counter::default(),
            log_skipped: Counter::default(),
            cookies_refused: Counter::default(),
            listeners: (0..LISTENERS_MAX).map(|_| ListenerMetrics::default()).collect(),
            backends: (0..BACKENDS_MAX).map(|_| BackendMetrics::default()).collect(),
            reasons: Reasons::default(),
            datagrams_dropped: Reasons::default(),
        }
    }

    /// Counters of a listener.
    #[inline]
    pub fn listener(&self, id: ListenerId) -> &ListenerMetrics {
        &self.listeners[id.index()]
    }

    /// Counters of a backend.
    #[inline]
    pub fn backend(&self, id: BackendId) -> &BackendMetrics {
        &self.backends[id.index()]
    }

    /// Counter of a reason.
    #[inline]
    pub fn reason(&self, reason: CloseReason) -> &Counter {
        self.reasons.of(reason)
    }
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        Self::new()
    }
}
