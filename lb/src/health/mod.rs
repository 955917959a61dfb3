//! Who is up. Says what to probe and what the answer means; never sends.

mod check;
mod rise_fall;
mod table;

pub use check::{Action, Check, Event, Policy};
pub use rise_fall::{Outcome, RiseFall, Verdict};
pub use table::HealthTable;
