//! What is known of one backend by its checks, for who asks.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::metrics::Counter;

/// Written by the prober after each probe, read by the admin API; by nobody who is hot.
#[derive(Debug, Default)]
pub struct Report(Mutex<Findings>);

/// What stands in a [`Report`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// When the verdict changed last, and why: `check http /healthz: 503, 3 of 3`. `None`: never since the start.
    pub changed: Option<(Instant, String)>,
    /// It is down by its check, as it was told in this run.
    pub is_down: bool,
    /// When a probe failed last, and how.
    pub failed: Option<(Instant, String)>,
    /// How long the last probe took.
    pub took: Option<Duration>,
    /// It is taken out by what exchanges met.
    pub ejected: Option<Ejection>,
}

/// Why one is taken out, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// When it began.
    pub since: Instant,
    /// When it ends.
    pub until: Instant,
    /// `outlier: 5 errors in a row`.
    pub reason: String,
}

/// What is known of one pool.
#[derive(Debug, Default)]
pub struct PoolReport {
    is_panic: AtomicBool,
    /// Times that all were used, whatever they were.
    pub panics: Counter,
}

impl PoolReport {
    /// Whether all are used, whatever they are.
    pub fn is_panic(&self) -> bool {
        self.is_panic.load(Ordering::Relaxed)
    }

    /// That begins, or ends.
    pub fn set_panic(&self, is_panic: bool) {
        self.is_panic.store(is_panic, Ordering::Relaxed);
        self.panics.add(u64::from(is_panic));
    }
}

impl Report {
    /// What is known now.
    pub fn findings(&self) -> Findings {
        self.lock().clone()
    }

    /// A probe has ended well, `took` after it began.
    pub fn passed(&self, took: Duration) {
        self.lock().took = Some(took);
    }

    /// A probe has failed.
    pub fn failed(&self, took: Duration, now: Instant, reason: &str) {
        let mut findings = self.lock();
        findings.took = Some(took);
        findings.failed = Some((now, reason.to_owned()));
    }

    /// The verdict has changed.
    pub fn changed(&self, now: Instant, is_up: bool, reason: &str) {
        let mut findings = self.lock();
        findings.changed = Some((now, reason.to_owned()));
        findings.is_down = !is_up;
    }

    /// It is down since before this run.
    pub fn begins_down(&self) {
        self.lock().is_down = true;
    }

    /// It is taken out, or no longer.
    pub fn ejected(&self, ejection: Option<Ejection>) {
        self.lock().ejected = ejection;
    }

    fn lock(&self) -> MutexGuard<'_, Findings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
