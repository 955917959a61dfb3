//! Which backend takes it: pure functions and counters, no clock, no thread, no randomness of their own.

mod balancer;
mod by_key;
mod draw;
mod generator;
mod key;
mod least_connections;
pub mod maglev;
mod peak_ewma;
pub mod round_robin;
mod standing;
mod sticky;
mod tried;
mod two_choices;

pub use balancer::{Ask, Balancer};
pub use by_key::ByKey;
pub use draw::Draw;
pub use generator::Generator;
pub use key::{derive, hash};
pub use least_connections::least_loaded;
pub use peak_ewma::PeakEwma;
pub use standing::{Standing, WHOLE, ramp};
pub use sticky::{Found, Sticky, TOKEN_BYTES};
pub use tried::{ATTEMPTS_MAX, Tried};
pub use two_choices::TwoChoices;
