//! Certificates while they are in use: files that change, keys of tickets that get old, what is about to expire.

use std::time::{Duration, Instant};

use super::{
    super::{
        addresses::Moves,
        certificates::{Certificates, Mode},
    },
    Live,
};
use crate::admin::{View, certificates::now_seconds};

/// How long one key seals tickets; it opens them for as long again.
pub(in crate::control) const ROTATION: Duration = Duration::from_secs(12 * 3600);

impl Live {
    /// Looks at files now and then, and swaps what has changed and is of use. Connections that there are stay as they
    /// are.
    pub(super) fn look_at_certificates(&mut self) {
        let is_due = self.watch.due() <= Instant::now();
        if self.watch.look(&self.effective, &self.plan.directory) {
            self.reload_certificates();
        }
        if is_due {
            self.warn_of_certificates();
            self.rotate_ticket_keys();
        }
    }

    /// No generation: the config stays the one that it is, as it does when names stand for others.
    fn reload_certificates(&mut self) {
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
            let views = self.certificates.views();
            let shown = views.iter().filter(|view| what == format!("{}.{}", view.table, view.name));
            let expires: Vec<i64> = shown.map(|view| view.validity.1).collect();
            tracing::info!(what, ?expires, "certificates swapped: their files have changed");
        }
    }

    fn use_certificates(&mut self, certificates: Certificates) {
        let is_for_workers = certificates.differs(&self.certificates);
        self.certificates = certificates;
        self.tell_prober(None, None);
        if is_for_workers {
            self.tell_workers_of_certificates();
        }
        let view = self.views.now();
        self.views.replace(View { certificates: self.certificates.views(), ..(*view).clone() });
    }

    fn tell_workers_of_certificates(&mut self) {
        let compiled = self.compiled.after(self.snapshot.clone(), &self.certificates.parts);
        self.swap(self.snapshot.clone(), compiled, Moves::default(), Vec::new());
    }

    /// Once for each day that is left, and once when it is over.
    fn warn_of_certificates(&mut self) {
        let now = now_seconds();
        let warnings: Vec<String> =
            self.certificates.views().iter().filter_map(|certificate| certificate.warning(now)).collect();
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
