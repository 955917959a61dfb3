//! A file per operation. Each is a future that is in flight from its making on; dropped early, it is cancelled
//! and what it lent is freed with its last completion.

mod accept;
mod connect;
mod event;
mod poll;
mod recv;
mod send;

use std::{
    future::Future,
    io,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use io_uring::squeue;

pub use accept::Accept;
pub use connect::Connect;
pub use event::Event;
pub use poll::{Readiness, Ready};
pub use recv::{Likely, RecvHeap, RecvPicked};
pub use send::{Send, SendBuf, SendSome};

use super::{
    Ring,
    slab::{Abandoned, Held, Key, Polled},
};

/// How an operation's completion becomes its output.
pub trait Kind {
    /// What awaiting it gives.
    type Output;
}

/// Turns a completion into the output; kept apart from [`Kind`] so that the slab's types stay inside the ring.
pub(super) trait Finish: Kind {
    fn finish(ring: &Ring, held: Held, result: i32, flags: u32) -> Self::Output;
}

/// An operation in flight, or complete and not yet awaited.
pub struct Op<K> {
    ring: Ring,
    /// `None` once its output was taken.
    key: Option<Key>,
    kind: PhantomData<K>,
}

impl<K> Op<K> {
    /// Puts `held` in the slab, lets `entry` point at it there, and queues the submission.
    fn start(ring: &Ring, held: Held, entry: impl FnOnce(&mut Held) -> squeue::Entry) -> Self {
        let (key, entry) = {
            let mut slab = ring.0.slab.borrow_mut();
            let key = slab.insert(held, false);
            let held = slab.held_mut(key);
            (key, held.map(entry))
        };
        if let Some(entry) = entry {
            ring.push(&entry.user_data(key.user_data()));
        }
        Self { ring: ring.clone(), key: Some(key), kind: PhantomData }
    }

    /// Whether it has failed, and with what, without taking its output. Not ready while it is in flight.
    pub fn poll_error(&self, context: &mut Context<'_>) -> Poll<Option<io::Error>> {
        let Some(key) = self.key else { return Poll::Ready(None) };
        match self.ring.0.slab.borrow_mut().peek(key, context.waker()) {
            Some(result) => Poll::Ready(outcome(result).err()),
            None => Poll::Pending,
        }
    }

    /// Asks the kernel to give it up. How it has ended, which may be well, tells who awaits it.
    pub fn cancel(&self) {
        if let Some(key) = self.key.filter(|_| !self.is_complete()) {
            self.ring.cancel(key.user_data());
        }
    }

    /// Whether awaiting it would return at once.
    pub fn is_complete(&self) -> bool {
        self.key.is_none_or(|key| self.ring.0.slab.borrow_mut().is_done(key))
    }
}

impl<K> Unpin for Op<K> {}

impl<K: Finish> Future for Op<K> {
    type Output = K::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<K::Output> {
        let Some(key) = self.key else { panic!("an operation is awaited once") };
        let polled = self.ring.0.slab.borrow_mut().poll(key, context.waker());
        match polled {
            Polled::Ready { result, flags, held: Some(held) } => {
                self.key = None;
                Poll::Ready(K::finish(&self.ring, held, result, flags))
            }
            Polled::Ready { held: None, .. } | Polled::Pending => Poll::Pending,
        }
    }
}

impl<K> Drop for Op<K> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            drop(abandon(&self.ring, key));
        }
    }
}

impl<K> std::fmt::Debug for Op<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Op({:?})", self.key)
    }
}

/// Cancels what is in flight, frees what is complete and was not taken. The waker of who waited for it.
pub(super) fn abandon(ring: &Ring, key: Key) -> Option<Waker> {
    let Abandoned { flying, results, mut held, waker } = ring.0.slab.borrow_mut().abandon(key);
    if flying {
        ring.cancel(key.user_data());
    }
    for (result, flags) in results {
        let keep = match &held {
            Some(Held::Listener(socket)) => Some(Held::Listener(socket.clone())),
            _ => held.take(),
        };
        ring.discard(keep, result, flags);
    }
    waker
}

/// A completion's result as the syscall's: a count, or an error.
fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}
