//! Whom to check and how, and what is known of them.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::{probe_talk::Secure, programs::Programs};
use crate::{
    admin::CheckView,
    config::{Health, Snapshot},
    health::{Policy, PoolReport, Report, Script, Verdict},
    metrics::{ProbeMetrics, WorkerMetrics},
    model::{BackendAddress, BackendId},
    steering::ProbePorts,
};

/// One backend to check.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Whose verdict.
    pub(super) id: BackendId,
    /// Its pool's name.
    pub(super) pool_name: Arc<str>,
    /// As the config has it.
    pub(super) health: Health,
    /// Its name, for logs.
    pub(super) name: Arc<str>,
    /// Where to ask.
    pub(super) address: BackendAddress,
    /// The host that is asked for, in HTTP/2.
    pub(super) authority: Arc<str>,
    /// How TLS is spoken, where it is.
    pub(super) secure: Option<Secure>,
    /// What to ask.
    pub(super) script: Script,
    /// How often, how long, how many.
    pub(super) policy: Policy,
    /// What the probes count.
    pub(super) metrics: Arc<ProbeMetrics>,
    /// What they find.
    pub(super) report: Arc<Report>,
    /// The program that asks, where one does.
    pub(super) program: Option<PathBuf>,
    /// The verdict that holds until an answer says otherwise.
    pub(super) initial: Verdict,
    /// Whether its probes go the way of a VIP's traffic.
    pub(super) is_through: bool,
}

/// What is to be known of pools, by name.
pub(super) type Reports = BTreeMap<Arc<str>, Arc<PoolReport>>;

/// What holds from now on.
pub(super) struct Change {
    pub(super) targets: Vec<Target>,
    pub(super) snapshot: Arc<Snapshot>,
    /// What workers count, those that have gone too: no fewer than before.
    pub(super) workers: Vec<Arc<WorkerMetrics>>,
    /// Every backend that may change.
    pub(super) checks: Arc<BTreeMap<BackendId, CheckView>>,
    /// Their pools.
    pub(super) reports: Arc<Reports>,
    /// Where the way of traffic opens now.
    pub(super) ports: Option<ProbePorts>,
    /// Where programs are, if they are others than before.
    pub(super) programs: Option<Programs>,
}
