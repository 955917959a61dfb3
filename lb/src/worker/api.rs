//! What control gives a worker and may tell it.

use std::{os::fd::OwnedFd, sync::Arc, time::Instant};

use super::AccessLogSetup;
use crate::{
    config::Snapshot,
    health::HealthTable,
    limits::Admission,
    metrics::WorkerMetrics,
    model::{ListenerId, WorkerId},
};

/// Everything a worker needs from its first turn on.
#[derive(Debug)]
pub struct Setup {
    /// Who it is.
    pub id: WorkerId,
    /// The core it is pinned to.
    pub core: usize,
    /// Config.
    pub snapshot: Arc<Snapshot>,
    /// Written by control.
    pub health: Arc<HealthTable>,
    /// Shared by all workers; touched at accept and close.
    pub admission: Arc<Admission>,
    /// Written by this worker.
    pub metrics: Arc<WorkerMetrics>,
    /// Where an access log is written.
    pub access_log: Option<AccessLogSetup>,
    /// Its own sockets of every listener's group, bound and listening.
    pub listeners: Vec<BoundListener>,
}

/// One listening socket of one worker.
#[derive(Debug)]
pub struct BoundListener {
    /// Which listener.
    pub listener: ListenerId,
    /// Bound, listening, SO_REUSEPORT.
    pub socket: OwnedFd,
}

/// What control may tell a worker.
#[derive(Debug)]
pub enum Command {
    /// Take over this config between two turns.
    Publish(Arc<Snapshot>),
    /// Accept nothing new, finish the rest; whatever is left at the deadline is closed. The worker then ends.
    Drain {
        /// When patience ends.
        deadline: Instant,
    },
    /// Close everything and end.
    Stop,
}
