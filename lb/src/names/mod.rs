//! Names of backends: what is asked, what an answer means, for how long it holds. Sends nothing, reads no clock.
//!
//! ```text
//!  Watch --due--> find: /etc/hosts, else questions --> who sends them --> wire::read --> Outcome --> Watch
//!    `- the answer as it stands: new, or the last good one
//! ```

pub mod answer;
pub mod find;
pub mod hosts;
pub mod watch;
pub mod wire;

pub use answer::{Denial, Failure};
pub use find::{Outcome, find};
pub use watch::{Condition, Policy, Watch};
