//! How a backend stands: its state, since when and why.

use std::time::Instant;

use serde_json::{Value, json};

use super::view::View;
use crate::{config::BackendSnapshot, health::Findings};

/// What is shown of one backend.
pub(super) struct Standing {
    is_used: bool,
    /// All of its pool are used, whatever they are.
    is_panic: bool,
    kind: Option<&'static str>,
    findings: Findings,
    now: Instant,
}

impl Standing {
    pub(super) fn of(view: &View, pool: &str, backend: &BackendSnapshot) -> Self {
        let check = view.checks.get(&backend.id);
        Self {
            is_used: view.health.is_up(backend.id),
            is_panic: view.is_panic(pool),
            kind: check.and_then(|check| check.kind),
            findings: check.map(|check| check.report.findings()).unwrap_or_default(),
            now: Instant::now(),
        }
    }

    /// `up`, `down` by its check, or `ejected` by what exchanges met. In a panic it is used all the same.
    pub(super) const fn state(&self) -> &'static str {
        match (&self.findings.ejected, self.is_used) {
            _ if self.findings.is_down => "down",
            (Some(_), _) => "ejected",
            (None, true) => "up",
            (None, false) => "down",
        }
    }

    /// Why; of an earlier run there is no telling.
    pub(super) fn reason(&self) -> Option<&str> {
        Some(self.turn()?.1.as_str())
    }

    /// How long it has been so, where that began in this run.
    pub(super) fn since_seconds(&self) -> Option<u64> {
        Some(self.seconds_since(self.turn()?.0))
    }

    /// When it came to stand so, and why.
    fn turn(&self) -> Option<(Instant, &String)> {
        match (&self.findings.ejected, &self.findings.changed) {
            (Some(ejection), _) if !self.findings.is_down => Some((ejection.since, &ejection.reason)),
            (_, changed) => changed.as_ref().map(|(at, reason)| (*at, reason)),
        }
    }

    /// Keys of a row.
    pub(super) fn put(&self, row: &mut Value) {
        let (failed, ejected) = (self.findings.failed.as_ref(), self.findings.ejected.as_ref());
        let left = ejected.map(|ejection| ejection.until.saturating_duration_since(self.now).as_secs());
        row["state"] = json!(self.state());
        row["used"] = json!(self.is_used);
        row["panic"] = json!(self.is_panic);
        row["since_seconds"] = json!(self.since_seconds());
        row["check"] = json!(self.kind);
        row["reason"] = json!(self.reason());
        row["ejected_for_seconds"] = json!(left);
        row["last_failure"] = json!(failed.map(|(_, reason)| reason));
        row["last_failure_seconds"] = json!(failed.map(|(at, _)| self.seconds_since(*at)));
        row["probe_us"] = json!(self.findings.took.map(|took| took.as_micros() as u64));
    }

    fn seconds_since(&self, at: Instant) -> u64 {
        self.now.saturating_duration_since(at).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{
        admin::{
            fixture,
            show::{Readings, What, render},
        },
        health::Ejection,
        model::BackendId,
    };

    #[test]
    fn a_row_says_since_when_and_why() {
        let view = fixture::view();
        let report = &view.checks[&BackendId(1)].report;
        let row = || render(What::Backends, &view, Readings::default())["backends"][0].take();
        assert_eq!((&row()["state"], &row()["check"]), (&"up".into(), &"tcp".into()));
        assert!(row()["reason"].is_null() && row()["since_seconds"].is_null());
        let long_ago = std::time::Instant::now() - Duration::from_secs(7);
        view.health.set(BackendId(1), false);
        report.failed(Duration::from_micros(1500), long_ago, "check tcp: connection refused");
        report.changed(long_ago, false, "check tcp: connection refused, 3 of 3");
        let row = row();
        assert_eq!(
            (&row["state"], &row["since_seconds"], &row["probe_us"]),
            (&"down".into(), &7.into(), &1500.into())
        );
        assert_eq!(row["reason"], "check tcp: connection refused, 3 of 3");
        assert_eq!(row["last_failure"], "check tcp: connection refused");
    }

    #[test]
    fn one_that_is_ejected_says_so_and_is_used_in_a_panic() {
        let view = fixture::view();
        let since = std::time::Instant::now();
        let (until, reason) = (since + Duration::from_secs(30), "outlier: 5 errors in a row".to_owned());
        view.checks[&BackendId(1)].report.ejected(Some(Ejection { since, until, reason }));
        view.health.set(BackendId(1), false);
        let row = || render(What::Backends, &view, Readings::default())["backends"][0].take();
        assert_eq!((&row()["state"], &row()["used"]), (&"ejected".into(), &false.into()));
        assert_eq!(row()["reason"], "outlier: 5 errors in a row");
        assert!(row()["ejected_for_seconds"].as_u64().is_some_and(|left| left <= 30));
        view.pools["app"].set_panic(true);
        view.health.set(BackendId(1), true);
        assert_eq!((&row()["state"], &row()["used"]), (&"ejected".into(), &true.into()));
        assert_eq!(row()["panic"], true);
    }
}
