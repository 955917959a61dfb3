//! The engine as a whole: by hand, by chance, and against the `h2` crate.

#![expect(clippy::unwrap_used, reason = "whatever is not as expected fails the test")]

mod common;
mod cuts;
mod hostile;
mod interop;
mod sim;
mod states;
mod windows;
