//! What is shown of what runs, and how it differs from its file.

use std::{sync::Arc, time::Instant};

use super::{super::history::History, FILE_LOOK, Live};
use crate::{
    admin::{View, changes::Etag},
    config::{self, Digest},
};

impl Live {
    /// Shows what runs.
    pub(super) fn show(&self) {
        let view = self.views.now();
        let history = self.history.as_ref();
        self.views.replace(View {
            config: Arc::new(self.plan.config.clone()),
            config_path: self.plan.path.clone(),
            config_digest: self.plan.digest.map(|digest| digest.to_string()),
            etag: Etag::from(self.fingerprint),
            warnings: self.warnings.clone(),
            names: self.names.show(),
            generations: history.map(History::views).unwrap_or_default(),
            overrides: history.map(History::override_views).unwrap_or_default(),
            degraded: self.degraded.clone(),
            drift: self.drift(),
            ..(*view).clone()
        });
    }

    pub(super) fn show_names(&self) {
        self.views.replace(View { names: self.names.show(), ..(*self.views.now()).clone() });
    }

    /// How the config's file differs from what runs, where it does.
    fn drift(&self) -> Option<String> {
        let path = self.plan.path.as_deref()?;
        let shown = path.display();
        match config::read_text(path) {
            Err(_) => Some(format!("{shown} cannot be read")),
            Ok(text) if Some(Digest::of(text.as_bytes())) != self.plan.digest => {
                Some(format!("{shown} is not the file that was applied: lb diff says how it differs"))
            }
            Ok(_) if self.is_edited => {
                Some(format!("the config was changed since {shown} was applied: lb diff says how"))
            }
            Ok(_) => None,
        }
    }

    /// Looks at the file now and then.
    pub(super) fn look_at_file(&mut self, look_at: &mut Instant) {
        if Instant::now() < *look_at {
            return;
        }
        *look_at = Instant::now() + FILE_LOOK;
        let drift = self.drift();
        let view = self.views.now();
        if view.drift != drift {
            self.views.replace(View { drift, ..(*view).clone() });
        }
    }
}
