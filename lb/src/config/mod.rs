//! From what a person writes to what a worker needs.
//!
//! `file` (TOML, spans, suggestions) -> [`Config`] (valid by construction) -> [`Snapshot`] (indexes resolved).

mod snapshot;
mod valid;

pub use snapshot::{
    BackendSnapshot, HostMatch, ListenerSnapshot, PathMatch, PoolSnapshot, RouteSnapshot, Snapshot,
};
pub use valid::*;
