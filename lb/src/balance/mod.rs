//! Which backend takes it: pure functions and counters, no clock, no thread, no randomness of their own.

pub mod maglev;
pub mod round_robin;
