//! From what a person writes to what a worker needs.
//!
//! `file` (TOML, spans, suggestions) -> [`Config`] (valid by construction) -> [`Snapshot`] (indexes resolved).

mod backend_ids;
mod choosing;
mod digest;
mod dns;
mod document;
mod file;
mod health;
mod limits;
mod listener;
mod listener_ids;
mod log;
mod named;
mod outlier;
mod pattern;
mod pool;
mod problem;
mod proxy_protocol;
mod quickstart;
mod resolve;
mod route;
mod route_policy;
mod show;
mod show_health;
mod show_key;
mod show_process;
mod show_route;
mod show_tls;
mod slots;
mod snapshot;
mod tls;
mod upgrade;
mod valid;

pub use backend_ids::{BackendIds, BackendIdsExhausted};
pub use choosing::{Choosing, Key, PoolSecret, Queue, Sticky};
pub use digest::Digest;
pub use dns::{Dns, Families};
pub use document::{ChangedEntry, Difference, Fingerprint, changed, differences, merge, put_entry};
pub use file::{
    FILE_BYTES_MAX, Loaded, ReadingNotes, Touched, json_schema, load, parse, read_edited, read_json,
    read_text, state_dir_in,
};
pub use health::*;
pub use limits::*;
pub use listener::*;
pub use listener_ids::ListenerIds;
pub use log::{
    AccessLog, LogField, LogFormat, LogInclude, LogPiece, LogStyle, LogTarget, Quoted, SAMPLE_ALL,
};
pub use named::Answers;
pub use outlier::Outlier;
pub use pattern::Pattern;
pub use pool::*;
pub use problem::{PROBLEMS_MAX, Place, Problem, Problems, Severity};
pub use proxy_protocol::{ProxyHeaders, ProxyVersion};
pub use route::*;
pub use route_policy::*;
pub use slots::Slots;
pub use snapshot::{
    AccessLogSnapshot, BackendSnapshot, HostMatch, ListenerSnapshot, PathMatch, PoolSnapshot, RouteSnapshot,
    Snapshot,
};
pub use tls::*;
pub use upgrade::Upgrade;
pub use valid::*;
