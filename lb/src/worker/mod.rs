//! One pinned thread with its own ring: accepts, relays, speaks HTTP. Composes everything below.
//!
//! ```text
//!  control --mailbox--> thread ---- turns the ring, the timers, the tasks
//!                         | spawns
//!                       accept ---- admits, then one task per connection:
//!                         |- drive_relay   bytes both ways, by copy or by splice(2)
//!                         `- drive_l7      heads, routes, exchanges
//!                               |- own_answer redirects, fixed answers
//!                               `- choice     picks a backend, dials or takes a kept connection
//! ```

mod accept;
mod access;
mod api;
mod choice;
mod connection;
mod drive_exchange;
mod drive_l7;
mod drive_relay;
mod lease;
mod local;
mod mailbox;
mod outcome;
mod own_answer;
mod pipes;
mod plan;
mod pump;
mod request_id;
mod stream;
mod teller;
#[cfg(test)]
mod tests;
mod thread;
pub mod timer;
mod trusted;
mod upstream;

pub use access::AccessLogSetup;
pub use api::{BoundListener, Command, Setup};
pub use thread::Handle;
