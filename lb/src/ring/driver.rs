//! What runs submissions: the kernel. Tests may put a simulated one in its place; elsewhere there is nothing to choose.

use std::{
    io,
    time::{Duration, Instant},
};

use io_uring::{IoUring, squeue, types};

#[cfg(test)]
use super::simulated::Simulated;
use super::{load::Load, setup};

/// One operation's end, or one of a many-shot's results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) user_data: u64,
    pub(super) result: i32,
    pub(super) flags: u32,
}

/// A ring of buffers as it is registered.
#[derive(Clone, Copy, Debug)]
pub(super) struct SharedRing {
    /// Address of its entries, page aligned.
    pub(super) entries: u64,
    pub(super) count: u16,
    pub(super) group: u16,
}

/// A busy worker to which so many results came between two waits waits for more of them than one,
const MANY: u32 = 4;
/// for so many,
const GATHERED: usize = 32;
/// but no longer than this: each wait costs the kernel a switch to another thread and back, and what shares one is that
/// much cheaper. Measured with 64 busy connections: 5 % of the CPU per request, and shorter tails; a worker that is not busy
/// would answer later by this.
const GATHER_MICROSECONDS: u32 = 60;

/// The real one.
pub(super) struct Kernel {
    ring: IoUring,
    /// Results since it last waited.
    reaped: u32,
    load: Load,
    /// It can wait for some results for a while and then for one (Linux 6.12, io_uring_enter(2)).
    gathers: bool,
}

impl Kernel {
    pub(super) fn new() -> io::Result<Self> {
        let ring = setup::uring()?;
        let gathers = ring.params().is_feature_min_timeout();
        Ok(Self { ring, reaped: 0, load: Load::new(Instant::now()), gathers })
    }

    /// Lets the kernel pick from a ring of buffers, which outlives this.
    pub(super) fn register(&mut self, ring: SharedRing) -> io::Result<()> {
        // SAFETY: the entries are page aligned, large enough for their count, and outlive the ring.
        unsafe { self.ring.submitter().register_buf_ring_with_flags(ring.entries, ring.count, ring.group, 0) }
    }

    /// Queues a submission, which points only to what stays until its last completion; when the queue is full, what is
    /// queued is submitted first.
    pub(super) fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: as the caller promises.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            // A full queue empties into the kernel; an error here is met again by `turn`.
            let _ = self.ring.submit();
        }
    }

    /// Submits what is queued and lets completions come in: one `io_uring_enter`.
    pub(super) fn enter(&mut self, wait: Option<Duration>) -> io::Result<usize> {
        let reaped = std::mem::take(&mut self.reaped);
        let Some(limit) = wait else { return self.enter_without_wait() };
        let timespec = types::Timespec::from(limit);
        let args = types::SubmitArgs::new().timespec(&timespec);
        if self.gathers && reaped >= MANY && self.load.is_high(Instant::now()) {
            let args = args.min_wait_usec(GATHER_MICROSECONDS);
            return self.ring.submitter().submit_with_args(GATHERED, &args);
        }
        self.ring.submitter().submit_with_args(1, &args)
    }

    fn enter_without_wait(&mut self) -> io::Result<usize> {
        let queued = {
            let mut queue = self.ring.submission();
            queue.sync();
            queue.len()
        };
        const ENTER_GETEVENTS: u32 = 1;
        // SAFETY: every queued entry was pushed by `push`, whose caller keeps what it points to in the slab;
        // no argument structure is passed. GETEVENTS runs deferred completions without waiting.
        unsafe { self.ring.submitter().enter::<()>(queued as u32, 0, ENTER_GETEVENTS, None) }
    }

    /// The oldest completion.
    pub(super) fn reap(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        self.reaped += 1;
        Some(Completion { user_data: entry.user_data(), result: entry.result(), flags: entry.flags() })
    }

    /// The time.
    pub(super) fn now(&self) -> Instant {
        Instant::now()
    }
}

#[cfg(not(test))]
pub(super) type Driver = Kernel;

/// Either.
#[cfg(test)]
pub(super) enum Driver {
    Kernel(Box<Kernel>),
    Simulated(Box<Simulated>),
}

#[cfg(test)]
impl Driver {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self::Kernel(Box::new(Kernel::new()?)))
    }

    pub(super) fn register(&mut self, ring: SharedRing) -> io::Result<()> {
        match self {
            Self::Kernel(kernel) => kernel.register(ring),
            Self::Simulated(simulated) => {
                simulated.register(ring);
                Ok(())
            }
        }
    }

    pub(super) fn push(&mut self, entry: &squeue::Entry) {
        match self {
            Self::Kernel(kernel) => kernel.push(entry),
            Self::Simulated(simulated) => simulated.push(entry),
        }
    }

    pub(super) fn enter(&mut self, wait: Option<Duration>) -> io::Result<usize> {
        match self {
            Self::Kernel(kernel) => kernel.enter(wait),
            Self::Simulated(simulated) => Ok(simulated.enter(wait)),
        }
    }

    pub(super) fn reap(&mut self) -> Option<Completion> {
        match self {
            Self::Kernel(kernel) => kernel.reap(),
            Self::Simulated(simulated) => simulated.reap(),
        }
    }

    pub(super) fn now(&self) -> Instant {
        match self {
            Self::Kernel(kernel) => kernel.now(),
            Self::Simulated(simulated) => simulated.now(),
        }
    }
}
