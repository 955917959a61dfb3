//! Who is up. Says what to probe and what the answer means; never sends.

mod table;

pub use table::HealthTable;
