//! Between control and steering.

use std::{io, path::Path as FilePath};

use super::{listeners::Group, plan::Plan, plane::PlaneMail};
use crate::config::Snapshot;

pub(super) struct Path;
pub(super) struct Opened {
    pub(super) steering: Option<Path>,
    pub(super) lost: Option<String>,
}
impl Path {
    pub(super) fn start(self) -> io::Result<PlaneMail> {
        unimplemented!()
    }
}
pub(super) fn open(plan: &Plan, snapshot: &Snapshot, bpf_dir: &FilePath) -> anyhow::Result<Opened> {
    _ = (plan, snapshot, bpf_dir);
    Ok(Opened { steering: None, lost: Some("none".into()) })
}
pub(super) fn steer(
    path: &mut Option<Path>,
    snapshot: &Snapshot,
    cores: &[usize],
    groups: Vec<Group>,
) -> anyhow::Result<Option<String>> {
    _ = (path, snapshot, cores, groups);
    Ok(None)
}
