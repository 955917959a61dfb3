//! A change of what is written and where, with everything of it that may fail already done.

use anyhow::Context as _;

use super::{Output, sink::Sink};
use crate::{config, log::Lines};

/// What the log's thread is to do from now on; dropped, nothing has happened.
pub(in crate::control) struct Turn(Option<Writes>);

/// Lines of this form, to another target or to the one that there is.
struct Writes {
    lines: Lines,
    to: Option<Sink>,
}

impl Turn {
    /// What it takes to come from one `[log]` to the other, its target open; `None`: nothing.
    ///
    /// # Errors
    /// `log.file` cannot be opened or reached.
    pub(in crate::control) fn prepare(
        now: Option<&config::AccessLog>,
        next: Option<&config::AccessLog>,
    ) -> anyhow::Result<Option<Self>> {
        if now == next {
            return Ok(None);
        }
        let Some(wanted) = next else { return Ok(Some(Self(None))) };
        let is_other = now.is_none_or(|now| now.target != wanted.target);
        let to = is_other.then(|| Sink::open(&wanted.target)).transpose();
        let to = to.with_context(|| format!("log.file = \"{}\"", wanted.target))?;
        Ok(Some(Self(Some(Writes { lines: Lines::new(wanted.style.clone()), to }))))
    }

    /// Whether no log is written after it.
    pub(in crate::control) const fn closes(&self) -> bool {
        self.0.is_none()
    }

    /// What is written from now on, of what was.
    pub(super) fn after(self, before: Option<Output>) -> Option<Output> {
        let Writes { lines, to } = self.0?;
        let mut sink = to.or(before.map(|before| before.sink))?;
        sink.keep();
        Some(Output { sink, lines })
    }
}
