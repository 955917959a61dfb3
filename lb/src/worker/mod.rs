//! One pinned thread with its own ring: accepts, relays, speaks HTTP. Composes everything below.
//!
//! ```text
//!  control --mailbox--> thread ---- turns the ring, the timers, the tasks
//!                         | spawns
//!                     drive_datagrams  one listening socket, a flow per client, each with a task for answers
//!                       accept ---- admits, then one task per connection:
//!                         |- proxied       reads whom it is relayed for; then one of the others
//!                         |- shake         TLS, where the listener speaks that; then one of those below
//!                         |- drive_relay   bytes both ways, by copy or by splice(2)
//!                         |- drive_h2      streams of HTTP/2, each of which goes on as one exchange of:
//!                         `- drive_l7      heads, routes, exchanges
//!                               |- target     route, limits: where it may go
//!                               |- attempts   backends one after the other, for what can be sent again
//!                               |- own_answer redirects, fixed answers
//!                               |- tunnel     bytes both ways, after a 101
//!                               `- choice     picks a backend, dials or takes a kept connection, of its own or from the shelf
//! ```

mod accept;
mod access;
mod api;
mod attempts;
mod buffers;
mod carrier;
mod choice;
mod compiled;
mod connection;
mod datagram_flow;
mod dispatch;
mod doors;
mod drive_datagrams;
mod drive_exchange;
mod drive_h2;
mod drive_l7;
mod drive_relay;
mod drive_request;
mod early;
mod interim;
mod introduction;
mod lead;
mod lease;
mod lender;
mod line;
mod linger;
mod local;
mod mailbox;
mod message;
mod multiplexed;
mod mutant;
mod outcome;
mod own_answer;
mod passthrough;
mod pipes;
mod plan;
mod pool_plan;
mod pressure;
mod proxied;
mod pump;
mod reach;
mod request_id;
mod secure;
mod shake;
mod shelving;
mod siblings;
mod sink;
mod speak;
mod stream;
mod stream_error;
mod target;
mod teller;
#[cfg(test)]
mod tests;
mod thread;
pub mod timer;
mod transport;
mod trusted;
mod tunnel;
mod turnstile;
mod upstream;
mod whole;

pub use access::AccessLogSetup;
pub use api::{BoundListener, Change, Command, LentFlow, LentSocket, Setup};
pub use compiled::{Compiled, TlsParts};
pub use lead::{Lead, lead};
pub use siblings::Siblings;
pub use thread::{CommandSender, Handle};
