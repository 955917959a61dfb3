//! From what a person writes to what a worker needs.
//!
//! `file` (TOML, spans, suggestions) -> [`Config`] (valid by construction) -> [`Snapshot`] (indexes resolved).

mod backend_ids;
mod digest;
mod file;
mod log;
mod pattern;
mod problem;
mod quickstart;
mod resolve;
mod route;
mod show;
mod show_key;
mod show_route;
mod snapshot;
mod valid;

pub use backend_ids::{BackendIds, BackendIdsExhausted};
pub use digest::Digest;
pub use file::{FILE_BYTES_MAX, Loaded, load, parse};
pub use log::{
    AccessLog, LogField, LogFormat, LogInclude, LogPiece, LogStyle, LogTarget, Quoted, SAMPLE_ALL,
};
pub use pattern::Pattern;
pub use problem::{PROBLEMS_MAX, Place, Problem, Problems, Severity};
pub use route::*;
pub use snapshot::{
    AccessLogSnapshot, BackendSnapshot, HostMatch, ListenerSnapshot, PathMatch, PoolSnapshot, RouteSnapshot,
    Snapshot,
};
pub use valid::*;
