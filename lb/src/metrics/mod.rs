//! Counters that each worker owns, and their bounds. Reading them never disturbs the writer.

mod counter;
pub mod encode;
mod log;
mod probe;
mod worker;

pub use counter::{Counter, Gauge};
pub use log::LogMetrics;
pub use probe::{EjectionMetrics, ProbeEnd, ProbeMetrics};
pub use worker::{BACKENDS_MAX, BackendMetrics, LISTENERS_MAX, ListenerMetrics, Reasons, WorkerMetrics};
