//! What carries a connection.

use std::{
    io,
    task::{Context, Poll},
    time::Instant,
};

/// See the module. Errors are ends: nothing more comes, nothing more goes.
pub trait Wire {
    /// What has been received and not consumed; nothing: the peer has ended.
    ///
    /// # Errors
    /// The connection broke.
    fn poll_fill(&mut self, task: &mut Context<'_>) -> Poll<io::Result<&[u8]>>;

    /// The first `len` bytes of it are done with.
    fn consume(&mut self, len: usize);

    /// Ready when nothing is being sent.
    ///
    /// # Errors
    /// The connection broke.
    fn poll_sent(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// An empty buffer, to be filled while others are sent.
    fn buffer(&mut self) -> Vec<u8>;

    /// Sends all of `bytes`; only where nothing is being sent.
    ///
    /// # Errors
    /// The connection broke.
    fn send(&mut self, bytes: Vec<u8>) -> io::Result<()>;

    /// The time.
    fn now(&self) -> Instant;
}
