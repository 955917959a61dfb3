//! One io_uring per worker: operations that own what the kernel can see, buffers it picks from, and the tasks
//! that wait for both.
//!
//! The slab of operations, never a future, owns buffers, addresses and descriptors while the kernel may touch
//! them. A future that is dropped in flight leaves an orphan: the operation is cancelled and what it holds is
//! freed with its last completion. `Ring` is `!Send`: it lives and dies on its worker's thread.
#![expect(unsafe_code, reason = "the door to io_uring; each block names its invariant")]

mod buffers;
mod driver;
pub mod executor;
mod load;
pub mod op;
mod setup;
#[cfg(test)]
pub(crate) mod simulated;
mod slab;
mod socket;
#[cfg(test)]
mod tests;
mod window;

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    task::Waker,
    time::{Duration, Instant},
};

use io_uring::squeue;

pub use buffers::{Group, RxBuf};
pub use op::{Op, SendBuf};
pub use socket::Socket;

use self::{buffers::Buffers, driver::Driver, slab::Slab};

/// user_data of submissions whose completion nobody waits for: closes and cancels.
const IGNORED: u64 = u64::MAX;

/// What the ring did since the counts were last taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct TurnCounts {
    /// `io_uring_enter` calls.
    pub enters: u64,
    /// Completions reaped.
    pub completions: u64,
    /// Completions that no operation was waiting for.
    pub stray: u64,
}

/// A handle on this thread's ring; clones are cheap and name the same ring.
#[derive(Clone)]
pub struct Ring(Rc<Inner>);

struct Inner {
    driver: RefCell<Driver>,
    slab: RefCell<Slab>,
    buffers: Buffers,
    counts: Cell<TurnCounts>,
}

/// Does not compile once `Ring` may travel or be shared: it would then meet two implementations.
const _: () = {
    trait StaysHere<Proof> {
        const STAYS: () = ();
    }
    struct Travels;
    struct IsShared;
    impl<T: ?Sized> StaysHere<()> for T {}
    impl<T: ?Sized + std::marker::Send> StaysHere<Travels> for T {}
    impl<T: ?Sized + Sync> StaysHere<IsShared> for T {}
    <Ring as StaysHere<_>>::STAYS
};

impl Drop for Inner {
    /// Closing a ring does not wait for what is in flight: what the kernel may still touch then is never freed.
    /// Only a ring that was dropped without [`Ring::shutdown`] comes here with operations, and of those only
    /// ones that hold no socket, since a socket keeps its ring.
    fn drop(&mut self) {
        let slab = self.slab.take();
        if slab.len() > 0 {
            std::mem::forget(slab);
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

impl Ring {
    /// Sets up a ring for the calling thread, with its buffers registered.
    ///
    /// # Errors
    /// The host refuses io_uring (ENOSYS, EPERM), or its kernel is below the floor of 6.1; the text says which.
    pub fn new() -> io::Result<Self> {
        Self::over(Driver::new()?)
    }

    /// Over a simulated kernel.
    #[cfg(test)]
    pub(crate) fn simulated(kernel: simulated::Simulated) -> Self {
        match Self::over(Driver::Simulated(Box::new(kernel))) {
            Ok(ring) => ring,
            Err(error) => panic!("no memory for buffers: {error}"),
        }
    }

    #[cfg(test)]
    fn simulated_client(&self, near: std::os::fd::RawFd) -> Option<std::net::SocketAddr> {
        match &*self.0.driver.borrow() {
            Driver::Kernel(_) => None,
            Driver::Simulated(simulated) => simulated.client(near),
        }
    }

    fn over(mut driver: Driver) -> io::Result<Self> {
        let buffers = Buffers::register(&mut driver)?;
        Ok(Self(Rc::new(Inner {
            driver: RefCell::new(driver),
            slab: RefCell::new(Slab::default()),
            buffers,
            counts: Cell::default(),
        })))
    }

    /// The time, as it is where the ring's operations take place.
    pub fn now(&self) -> Instant {
        self.0.driver.borrow().now()
    }

    /// Operations that the kernel has not finished, orphans included.
    pub fn in_flight(&self) -> usize {
        self.0.slab.borrow().len()
    }

    /// Buffers of the group that somebody holds.
    pub fn lent(&self, group: Group) -> usize {
        self.0.buffers.lent(group)
    }

    /// Whether the group has so few buffers left that nobody should sit on one.
    pub fn is_scarce(&self, group: Group) -> bool {
        self.lent(group) >= group.count() / 2
    }

    /// Counts since the last call.
    pub fn take_counts(&self) -> TurnCounts {
        self.0.counts.take()
    }

    /// Submits what is queued, reaps what is complete and wakes its tasks: one `io_uring_enter`.
    ///
    /// `wait`: `None` returns at once; `Some(limit)` sleeps for a completion, at most `limit`.
    ///
    /// # Errors
    /// Whatever `io_uring_enter` fails with, save interruptions and time-outs, which are ordinary.
    pub fn turn(&self, wait: Option<Duration>) -> io::Result<()> {
        self.0.buffers.refill();
        let entered = self.0.driver.borrow_mut().enter(wait);
        self.count(|counts| counts.enters += 1);
        match entered.map_err(|error| error.raw_os_error().unwrap_or(0)) {
            // EBUSY: the completion queue overflowed; reaping makes room.
            Ok(_) | Err(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => {}
            Err(errno) => return Err(io::Error::from_raw_os_error(errno)),
        }
        self.reap();
        Ok(())
    }

    fn count(&self, change: impl FnOnce(&mut TurnCounts)) {
        let mut counts = self.0.counts.get();
        change(&mut counts);
        self.0.counts.set(counts);
    }

    fn reap(&self) {
        loop {
            // One at a time: a completion may drop things that push new submissions.
            let Some(driver::Completion { user_data, result, flags }) = self.0.driver.borrow_mut().reap()
            else {
                return;
            };
            self.count(|counts| counts.completions += 1);
            if user_data == IGNORED {
                continue;
            }
            let more = io_uring::cqueue::more(flags);
            let settled = self.0.slab.borrow_mut().complete(user_data, result, flags, more);
            match settled {
                slab::Settled::Woke(waker) => waker.into_iter().for_each(Waker::wake),
                slab::Settled::Orphan(held) => self.discard(held, result, flags),
                slab::Settled::Stray => {
                    self.count(|counts| counts.stray += 1);
                    self.discard(None, result, flags);
                }
            }
        }
    }

    /// Frees what a completion carries that nobody will take: a picked buffer, an accepted descriptor.
    fn discard(&self, held: Option<slab::Held>, result: i32, flags: u32) {
        if let Some(id) = io_uring::cqueue::buffer_select(flags)
            && let Some(group) = held.as_ref().and_then(slab::Held::group)
        {
            drop(RxBuf::new(self, group, id, result));
        }
        if matches!(held, Some(slab::Held::Listener(_))) && result >= 0 {
            drop(Socket::from_accepted(self, result));
        }
        drop(held);
    }

    /// Queues a submission; when the queue is full, what is queued is submitted first.
    fn push(&self, entry: &squeue::Entry) {
        // It points only to memory that `slab::Held` of its user_data owns until its last completion, or to nothing
        // (IGNORED entries).
        self.0.driver.borrow_mut().push(entry);
    }

    fn cancel(&self, user_data: u64) {
        self.push(&io_uring::opcode::AsyncCancel::new(user_data).build().user_data(IGNORED));
    }

    /// Drops every task of this thread, cancels everything in flight, waits until the kernel has let go of all of
    /// it, and closes what those held.
    ///
    /// # Errors
    /// The ring itself failed; its memory then stays alive for good.
    pub fn shutdown(&self) -> io::Result<()> {
        loop {
            executor::clear();
            let keys = self.0.slab.borrow().wanted();
            if keys.is_empty() {
                break;
            }
            // Who is woken is queued, to be dropped: others may hold wakers of it, in circles.
            keys.into_iter().filter_map(|key| op::abandon(self, key)).for_each(Waker::wake);
        }
        while self.in_flight() > 0 {
            self.turn(Some(Duration::from_millis(100)))?;
        }
        // The closes of all those sockets.
        self.turn(None)
    }
}
