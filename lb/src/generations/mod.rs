//! Generations on disk: which config runs, which ran before, who changed it, and what operators said of backends.
//!
//! ```text
//! STATE/generations/7.whole      a generation with all of its document
//!                   9.on-7       one by what differs from that
//!                   10.prepared  one that is not in force yet; removed by the next start
//! STATE/audit.log, audit.log.1   a line for each change
//! STATE/overrides                drains and weights
//! ```
//!
//! The generation with the greatest number is the current one: a prepared record becomes it by one rename. All files
//! are ours alone. Everything here blocks, for an fsync as long as the disk likes. Secrets never come here: configs
//! hold references, and digests of what they lead to. Nothing here reads a clock, or says anything in a log.

mod audit;
mod disk;
mod overrides;
mod record;
mod sealed;
mod store;
#[cfg(test)]
mod tests;

pub use audit::{Audit, AuditEntry, Outcome};
pub use overrides::{BackendOverride, Overrides};
pub use record::{About, Author, Content, Origin, Record, SourceFile};
pub use sealed::Damage;
pub use store::{Bounds, Listed, Opened, Pace, Prepared, Store, StoreError};
