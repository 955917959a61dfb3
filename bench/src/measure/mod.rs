//! Costs, as the kernel counts them.

mod cpu;
mod memory;
mod syscalls;

pub(crate) use cpu::{CORE_BUSY, Cost, CostMetrics, Reading, background_percent};
pub(crate) use memory::{memory_bytes, open_files_max, raise_open_files};
pub(crate) use syscalls::{PerfCount, Strace};
