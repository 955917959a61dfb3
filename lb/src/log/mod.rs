//! The access log between a worker, who notes facts, and whoever writes them down as lines.
//!
//! ```text
//!  worker: Draft --encode--> Sender ===bounded queue===> Receiver --decode--> Record --Lines--> bytes: control
//! ```
//! Records hold names, no ids: they mean the same whatever config runs when they are read. Nothing here reads a
//! clock, blocks or writes.

mod line;
mod queue;
mod record;

pub use line::Lines;
pub use queue::{QUEUE_BYTES, Receiver, Sender, queue};
pub use record::{Draft, Facts, HttpVersion, Record, Text};
