//! What a route changes of a message, compiled.

use super::rewrite::PathRewrite;
use crate::config::{HeaderEdits, RouteAction, RouteSnapshot};

/// Changes of fields: names to drop, lines to write behind those that stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldEdits {
    drops: Box<[Box<[u8]>]>,
    /// Whole lines, each with its CRLF.
    pub(super) lines: Box<[u8]>,
}

impl FieldEdits {
    /// `None` where nothing is changed.
    pub fn new(edits: &HeaderEdits) -> Option<Self> {
        let drops = edits.set.iter().map(|(name, _)| name).chain(&edits.remove);
        let lines: String =
            edits.set.iter().chain(&edits.add).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        (!edits.is_empty()).then(|| Self {
            drops: drops.map(|name| name.as_bytes().into()).collect(),
            lines: lines.into_bytes().into(),
        })
    }

    /// Whether a field of this name is left out.
    pub fn drops(&self, name: &[u8]) -> bool {
        self.drops.iter().any(|dropped| dropped.eq_ignore_ascii_case(name))
    }
}

/// Changes of a request on its way to a backend.
#[derive(Clone, Debug)]
pub struct RequestEdits {
    /// `Host`, instead of the request's own.
    pub host: Option<Box<[u8]>>,
    /// The path.
    pub path: Option<PathRewrite>,
    /// Fields.
    pub fields: Option<FieldEdits>,
}

impl RequestEdits {
    /// Those of a route; `None` where it changes nothing.
    pub fn new(route: &RouteSnapshot) -> Option<Self> {
        let RouteAction::Forward { rewrite, .. } = &route.action else { return None };
        let edits = Self {
            host: rewrite.host.as_ref().map(|host| host.as_bytes().into()),
            path: rewrite.path.as_ref().map(|path| PathRewrite::new(path.clone(), &route.path)),
            fields: FieldEdits::new(&route.request_headers),
        };
        let is_change = edits.host.is_some() || edits.path.is_some() || edits.fields.is_some();
        is_change.then_some(edits)
    }
}
