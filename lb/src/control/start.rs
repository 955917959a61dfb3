//! Which config a start runs.
//!
//! A file that differs from the one that was applied last is applied. Else the last generation runs, which may have been
//! changed by the API since. It also runs where the file is no config any more: loudly, as somebody has to see to that.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{
    edit,
    history::{Found, History, Next, is_of},
    options::Options,
    paths::Paths,
    plan::{Overridden, Plan},
    references,
};
use crate::{
    admin::changes::Author,
    config::{self, Fingerprint, Problems},
    generations::{Origin, Prepared, Record},
    model::Generation,
};

/// What is to run.
pub(super) struct Start {
    pub(super) plan: Plan,
    /// `None`: nothing is kept.
    pub(super) history: Option<History>,
    pub(super) generation: Generation,
    /// To be brought into force once it runs; `None`: it is already, or nothing is kept.
    pub(super) record: Option<Prepared>,
    /// What runs is not what the file alone says.
    pub(super) is_edited: bool,
    /// Why what runs is not what should.
    pub(super) degraded: Option<String>,
}

impl Start {
    /// Decides.
    ///
    /// # Errors
    /// There is no config to run, or the state directory that it needs cannot be had.
    pub(super) fn choose(options: &Options, overridden: &Overridden) -> anyhow::Result<Self> {
        let Some(path) = &options.config else {
            let mut plan = Plan::quickstart(&Paths::of_this_user())?;
            plan.override_directories(overridden);
            return Ok(Self::unkept(plan));
        };
        let read = Plan::of_file(path).map(|mut plan| {
            plan.override_directories(overridden);
            plan
        });
        let state_dir = overridden.state_dir.clone().unwrap_or_else(|| match &read {
            Ok(plan) => plan.config.state.dir.clone(),
            Err(_) => state_dir_in(path),
        });
        match History::open(&state_dir) {
            Ok(found) => Self::of_found(read, found, overridden),
            Err(error) => {
                let mut plan = read?;
                if plan.config.xdp.is_some() {
                    return Err(error);
                }
                plan.warnings.push(format!("{error:#}: no generation is kept, so a restart runs the file"));
                Ok(Self::unkept(plan))
            }
        }
    }

    fn unkept(plan: Plan) -> Self {
        let (history, record, degraded) = (None, None, None);
        Self { plan, history, generation: Generation(1), record, is_edited: false, degraded }
    }

    fn of_found(read: Result<Plan, Problems>, found: Found, overridden: &Overridden) -> anyhow::Result<Self> {
        let Found { history, current, mut warnings } = found;
        let (mut start, is_new) = match (read, current) {
            (Ok(plan), Some(record)) if is_same(&plan, &record) => match edit::kept(&record) {
                Ok(kept) => (Self::of_record(kept, history, &record), false),
                Err(problems) => {
                    let number = record.about.number;
                    warnings.push(format!(
                        "generation {number} is of no use, so the file is applied: {problems}"
                    ));
                    (Self { history: Some(history), ..Self::unkept(plan) }, true)
                }
            },
            (Ok(plan), _) => (Self { history: Some(history), ..Self::unkept(plan) }, true),
            (Err(problems), Some(record)) => {
                let kept = edit::kept(&record).map_err(|_| problems.clone())?;
                let number = record.about.number;
                let degraded = Some(format!("generation {number} runs, as the file is invalid: {problems}"));
                (Self { degraded, ..Self::of_record(kept, history, &record) }, false)
            }
            (Err(problems), None) => return Err(problems.into()),
        };
        start.plan.override_directories(overridden);
        start.plan.warnings.append(&mut warnings);
        if let Some(history) = start.history.as_mut().filter(|_| is_new) {
            start.generation = history.next_number();
            let by = Author { by: "start".into(), uid: None, pid: None };
            let (number, before) = (start.generation, Generation(0));
            let next = Next { number, before, etag: Fingerprint::of(&start.plan.config) };
            let record = history.prepare(next, &start.plan, &[], &by, Origin::File);
            start.record = Some(record.context("the generation that begins")?);
        }
        Ok(start)
    }

    fn of_record(mut plan: Plan, history: History, record: &Record) -> Self {
        plan.warnings.extend(references::changed(&record.about, &plan));
        let is_edited = record.about.origin != Origin::File;
        let generation = record.about.number;
        Self { plan, history: Some(history), generation, record: None, is_edited, degraded: None }
    }
}

/// Whether a generation was made of this text of this file, or by changes after that.
fn is_same(plan: &Plan, record: &Record) -> bool {
    plan.path.as_deref().zip(plan.digest).is_some_and(|(path, digest)| is_of(&record.about, path, digest))
}

/// Where the state of a file that is no config may lie.
fn state_dir_in(path: &Path) -> PathBuf {
    let said = config::read_text(path).ok().and_then(|text| config::state_dir_in(&text));
    said.unwrap_or_else(|| Paths::system().state_dir)
}
