//! What the host gives: cores, open files, memory, what its kernel can.

use anyhow::Context as _;
use lb_abi::bounds::WORKERS_MAX;

use super::{host, plan::Plan};
use crate::{
    config::Config,
    sys::{affinity, heap},
    tls::KernelSuites,
};

/// What this host lets us have of a config.
pub(super) struct Ground {
    pub(super) effective: Config,
    /// Of the workers.
    pub(super) cores: Vec<usize>,
    /// How many there may come to be.
    pub(super) workers_max: usize,
    pub(super) open_files: u64,
    /// What the kernel seals of TLS; or why nothing.
    pub(super) kernel_tls: Result<KernelSuites, String>,
    pub(super) warnings: Vec<String>,
}

impl Ground {
    /// Asks the host, and settles what is up to it.
    ///
    /// # Errors
    /// There are not the cores that the config wants.
    pub(super) fn find(plan: &Plan) -> anyhow::Result<Self> {
        let (mut effective, mut warnings) = (plan.config.clone(), plan.warnings.clone());
        let open_files = host::raise_open_files();
        warnings.extend(host::clip_connections(&mut effective.limits, open_files));
        heap::map_large_blocks();
        host::settle_memory(&mut effective.limits);
        let allowed = affinity::allowed_cores().context("sched_getaffinity")?;
        let cores = host::place_workers(&effective.runtime.workers, &allowed).map_err(anyhow::Error::msg)?;
        let workers_max = allowed.len().min(WORKERS_MAX as usize).max(cores.len());
        let kernel_tls = host::kernel_tls();
        Ok(Self { effective, cores, workers_max, open_files, kernel_tls, warnings })
    }
}
