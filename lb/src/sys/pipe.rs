//! Pipes and splice(2): bytes that never enter user space.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};

/// Wanted capacity. 256 KiB to 1 MiB cost the least CPU per byte; where segments of 1500 bytes fill the slots,
/// more is better (io-paths: 64 KiB loses the whole gain).
pub const CAPACITY: usize = 512 << 10;

/// A non-blocking pipe of [`CAPACITY`] bytes.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// What one non-blocking splice did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spliced {
    /// That many bytes moved, at least one.
    Bytes(usize),
    /// End of the stream.
    Eof,
    /// Nothing can move now: no bytes, no room, or the pipe is full.
    Blocked,
}

impl Pipe {
    /// Makes one.
    ///
    /// # Errors
    /// EMFILE; EPERM or EBUSY: the kernel refuses the size (fs.pipe-user-pages-soft). Copy instead.
    pub fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        fcntl_setpipe_size(&write, CAPACITY)?;
        Ok(Self { read, write })
    }

    /// Moves at most `len` bytes from `socket`, which must be non-blocking, into the pipe.
    ///
    /// # Errors
    /// ECONNRESET and the like.
    pub fn fill(&self, socket: impl AsFd, len: usize) -> io::Result<Spliced> {
        moved(splice(socket, None, &self.write, None, len, SpliceFlags::MOVE | SpliceFlags::NONBLOCK))
    }

    /// Moves at most `len` bytes from the pipe into `socket`.
    ///
    /// # Errors
    /// EPIPE, ECONNRESET and the like.
    pub fn drain(&self, socket: impl AsFd, len: usize) -> io::Result<Spliced> {
        moved(splice(&self.read, None, socket, None, len, SpliceFlags::MOVE | SpliceFlags::NONBLOCK))
    }
}

fn moved(result: rustix::io::Result<usize>) -> io::Result<Spliced> {
    match result {
        Ok(0) => Ok(Spliced::Eof),
        Ok(len) => Ok(Spliced::Bytes(len)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Spliced::Blocked),
        Err(error) => Err(error.into()),
    }
}
