//! Counters that each worker owns, and their bounds. Reading them never disturbs the writer.

mod counter;
mod worker;

pub use counter::{Counter, Gauge};
pub use worker::{BACKENDS_MAX, BackendMetrics, LISTENERS_MAX, ListenerMetrics, WorkerMetrics};
