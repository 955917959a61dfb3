//! What is kept of the reading of a config, for the reading of an edit of it.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

use super::{FILE_BYTES_MAX, route_index::RouteIndex};
use crate::config::{Config, Problems};

/// Most values in a document: a full deny list has half as many.
pub(super) const VALUES_MAX: usize = 1 << 20;

/// What is to be known of a config beside itself, to read an edit of it.
#[derive(Clone, Debug, Default)]
pub struct ReadingNotes {
    /// Routes that there were warnings of.
    pub(super) warned: BTreeSet<Arc<str>>,
    /// Its canonical document is no larger.
    pub(super) size: DocumentSize,
    /// Of its routes, once it was edited.
    index: OnceLock<RouteIndex>,
}

/// Size of a document.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DocumentSize {
    /// Bytes of compact JSON.
    pub(super) bytes: usize,
    /// Keys and values.
    pub(super) values: usize,
}

impl DocumentSize {
    pub(super) fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, values: self.values + other.values }
    }

    pub(super) const fn fits(self) -> bool {
        self.bytes <= FILE_BYTES_MAX && self.values < VALUES_MAX
    }
}

impl ReadingNotes {
    pub(super) fn new(warnings: &Problems, size: DocumentSize) -> Self {
        let names = warnings.iter().filter_map(|problem| problem.key.strip_prefix("route."));
        let warned = names.filter_map(|name| Some(name.split('.').next()?.into())).collect();
        Self { warned, size, index: OnceLock::new() }
    }

    /// Of the routes of that config.
    pub(super) fn index(&self, config: &Config) -> &RouteIndex {
        self.index.get_or_init(|| RouteIndex::of(config))
    }

    /// With what is known already of the document that these are of.
    pub(super) fn with(self, size: DocumentSize, index: RouteIndex) -> Self {
        Self { size, index: index.into(), ..self }
    }
}
