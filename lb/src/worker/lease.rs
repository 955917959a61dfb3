//! A pipe while bytes are spliced one way.

use super::local::Local;
use crate::sys::pipe::Pipe;

/// The pipe of one direction; on drop it goes back empty, or away with what is in it.
pub(super) struct Lease<'a> {
    local: &'a Local,
    pipe: Option<Pipe>,
    is_empty: bool,
}

impl<'a> Lease<'a> {
    /// None yet.
    pub(super) const fn none(local: &'a Local) -> Self {
        Self { local, pipe: None, is_empty: true }
    }

    /// Whether a pipe was to be had.
    pub(super) fn take(&mut self) -> bool {
        self.pipe = self.local.pipes.lease();
        if self.pipe.is_none() {
            self.local.metrics.pipes_refused.add(1);
        }
        self.pipe.is_some()
    }

    /// The pipe, where there is one.
    pub(super) const fn pipe(&self) -> Option<&Pipe> {
        self.pipe.as_ref()
    }

    /// Whether nothing is in the pipe.
    pub(super) const fn note(&mut self, is_empty: bool) {
        self.is_empty = is_empty;
    }

    pub(super) fn give_back(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            if self.is_empty { self.local.pipes.give_back(pipe) } else { self.local.pipes.discard(pipe) }
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}
