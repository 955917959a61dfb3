//! Certificates while they are in use: files that change, keys of tickets that get old, what is about to expire.

use std::time::{Duration, Instant};

use super::{
    super::{
        addresses::Moves,
        certificates::{Certificates, Mode},
        staples,
    },
    Live,
};
use crate::admin::{CertificateView, View, certificates::now_seconds};

/// How long one key seals tickets; it opens them for as long again.
pub(in crate::control) const ROTATION: Duration = Duration::from_secs(12 * 3600);

impl Live {
    /// Looks at files now and then, and swaps what has changed and is of use. Connections that there are stay as they
    /// are.
    pub(super) fn look_at_certificates(&mut self) {
        let is_due = self.watch.due() <= Instant::now();
        if self.watch.look(&self.effective, &self.plan.directory) {
            self.reload_certificates("their files have changed");
        }
        if is_due {
            self.warn_of_certificates();
            self.rotate_ticket_keys();
        }
    }

    /// No generation: the config stays the one that it is, as it does when names stand for others.
    fn reload_certificates(&mut self, because: &str) {
        let (loaded, misfits) = self.certificates.read(&self.effective, &self.plan.directory, Mode::KeepOld);
        for misfit in &misfits {
            tracing::warn!(
                at = misfit.at,
                why = misfit.message,
                "a changed file is of no use: the old one goes on"
            );
        }
        let swapped = loaded.swapped(&self.certificates);
        if swapped.is_empty() && !loaded.differs(&self.certificates) {
            return;
        }
        self.use_certificates(loaded);
        for what in swapped {
            let views = self.certificates.views(&self.staples);
            let is_shown = |view: &&CertificateView| what == format!("{}.{}", view.table, view.name);
            let shown = views.certificates.iter().filter(is_shown);
            let expires: Vec<i64> = shown.map(|view| view.validity.1).collect();
            tracing::info!(what, ?expires, because, "certificates swapped");
        }
    }

    fn use_certificates(&mut self, certificates: Certificates) {
        let is_for_workers = certificates.differs(&self.certificates);
        self.certificates = certificates;
        self.tell_prober(None, None);
        if is_for_workers {
            self.tell_workers_of_certificates();
        }
        self.show_certificates();
    }

    fn show_certificates(&self) {
        let view = self.views.now();
        self.views.replace(View { certificates: self.certificates.views(&self.staples), ..(*view).clone() });
    }

    /// Asks authorities about what there is now, where it is time to, and shows no answer that is out of date.
    pub(super) fn look_at_staples(&mut self) {
        let now = now_seconds();
        self.staples.ask_about(self.certificates.asked(), now);
        self.staples.begin(&self.effective.dns, now);
        if self.certificates.drop_staples(now) {
            tracing::warn!("an OCSP answer is out of date: it is shown no more");
            self.reload_certificates("an OCSP answer is out of date");
        }
    }

    /// What questions have brought.
    pub(super) fn take_staples(&mut self, ended: impl Iterator<Item = staples::Ended>) {
        let now = now_seconds();
        let good: Vec<_> = ended.filter_map(|ended| self.staples.end(ended, now)).collect();
        if good.is_empty() {
            return self.show_certificates();
        }
        self.certificates.put_staples(good);
        self.reload_certificates("an OCSP answer was fetched");
    }

    fn tell_workers_of_certificates(&mut self) {
        let compiled = self.compiled.after(self.snapshot.clone(), &self.certificates.parts);
        self.swap(self.snapshot.clone(), compiled, Moves::default(), Vec::new());
    }

    /// Once for each day that is left, and once when it is over.
    fn warn_of_certificates(&mut self) {
        let now = now_seconds();
        let warnings = self.certificates.views(&self.staples).warnings(now);
        self.said.retain(|said| warnings.contains(said));
        for warning in warnings {
            if self.said.insert(warning.clone()) {
                tracing::warn!("{warning}");
            }
        }
    }

    fn rotate_ticket_keys(&mut self) {
        if Instant::now() < self.rotate_at {
            return;
        }
        self.rotate_at = Instant::now() + ROTATION;
        match self.certificates.rotate() {
            Ok(()) => tracing::info!("tickets are sealed with another key"),
            Err(error) => tracing::error!(%error, "tickets are still sealed with the key from before"),
        }
    }
}
