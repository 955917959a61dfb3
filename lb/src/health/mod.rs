//! Who is up. Says what to probe and what the answer means; never sends.

mod check;
mod outlier;
mod probe;
mod report;
mod rise_fall;
mod table;
mod usable;

pub use check::{Action, Check, Event, Policy};
pub use outlier::{Cause, Change, Outliers, Standing, Tally};
pub use probe::{Dialogue, Fault, Found, GRPC_PATH, GrpcAnswer, Script};
pub use report::{Ejection, Findings, PoolReport, Report};
pub use rise_fall::{Outcome, RiseFall, Verdict};
pub use table::HealthTable;
pub use usable::{Turn, Usable};
