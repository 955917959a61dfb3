//! Configs as JSON documents: one merged into another, and what tells two of them apart.

mod changed;
mod difference;
mod fingerprint;
mod merge;

pub use changed::{ChangedEntry, changed, put_entry};
pub use difference::{Difference, differences};
pub use fingerprint::Fingerprint;
pub use merge::merge;
