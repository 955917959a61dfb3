//! Multishot accept: one submission, many connections.

use std::{
    future::poll_fn,
    io,
    os::fd::RawFd,
    task::{Context, Poll},
};

use io_uring::opcode;

use super::{abandon, outcome};
use crate::ring::{
    Ring, Socket,
    slab::{Held, Key, Polled},
};

/// Accepts on one listening socket until dropped. Accepted sockets are non-blocking and close-on-exec.
pub struct Accept {
    ring: Ring,
    listener: Socket,
    /// `None`: the kernel ended the shot; the next call arms a new one.
    key: Option<Key>,
}

impl Accept {
    /// Arms the first shot.
    pub fn new(ring: &Ring, listener: Socket) -> Self {
        let mut accept = Self { ring: ring.clone(), listener, key: None };
        accept.arm();
        accept
    }

    fn arm(&mut self) -> Key {
        let held = Held::Listener(self.listener.clone());
        let key = self.ring.0.slab.borrow_mut().insert(held, true);
        let entry = opcode::AcceptMulti::new(self.listener.fd())
            .flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
            .build()
            .user_data(key.user_data());
        self.ring.push(&entry);
        self.key = Some(key);
        key
    }

    /// The next connection.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOBUFS, ENOMEM: wait a while and call again. ECONNABORTED: call again at once.
    pub async fn next(&mut self) -> io::Result<Socket> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Ends the accepting; what the kernel had accepted by then.
    pub async fn finish(mut self) -> Vec<Socket> {
        let mut rest = Vec::new();
        if let Some(key) = self.key {
            self.ring.cancel(key.user_data());
        }
        while self.key.is_some() {
            rest.extend(self.next().await.ok());
        }
        rest
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Socket>> {
        let key = match self.key {
            Some(key) => key,
            None => self.arm(),
        };
        let polled = self.ring.0.slab.borrow_mut().poll(key, context.waker());
        match polled {
            Polled::Pending => Poll::Pending,
            Polled::Ready { result, held, .. } => {
                if held.is_some() {
                    self.key = None;
                }
                Poll::Ready(
                    outcome(result).map(|descriptor| Socket::from_accepted(&self.ring, descriptor as RawFd)),
                )
            }
        }
    }
}

impl Drop for Accept {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            drop(abandon(&self.ring, key));
        }
    }
}

impl std::fmt::Debug for Accept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Accept({:?})", self.listener)
    }
}
