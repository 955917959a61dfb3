//! What anybody may take of us and of those behind us: connections, requests, memory, and second attempts; and how much
//! may go on with each backend ([`Permits`]).

mod admission;
mod budget;
mod gate;
mod memory;
mod permits;
mod rate;

pub use admission::{Admission, Permit};
pub use budget::RetryBudget;
pub use gate::Gate;
pub use memory::{Memory, Pressure};
pub use permits::{BATCH_MAX, Permits, Purse};
pub use rate::{Rate, RateKey, Rates, Taken};
