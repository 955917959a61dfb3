//! A connection to a backend that carries several exchanges at once.

use std::{cell::Cell, fmt, rc::Rc, time::Instant};

use crate::{
    l7::http2::{Asking, Requests},
    ring::Socket,
};

/// Exchanges on one connection, where the backend takes as many.
pub(super) const EXCHANGES_MAX: usize = 100;

/// See the module. Its task holds `is_over` and nothing else of it: the last who begins exchanges is the last who keeps it open.
#[derive(Debug)]
pub(super) struct Carrier {
    requests: Requests,
    socket: Socket,
    is_secure: bool,
    is_over: Rc<Cell<bool>>,
    going: Cell<usize>,
    /// When it was seen first that nothing goes on.
    quiet_since: Cell<Option<Instant>>,
}

impl Carrier {
    pub(super) fn new(requests: Requests, socket: Socket, is_secure: bool, is_over: Rc<Cell<bool>>) -> Self {
        Self { requests, socket, is_secure, is_over, going: Cell::new(0), quiet_since: Cell::new(None) }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Whether the backend takes no more on it.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.get() || !self.requests.is_open()
    }

    /// Exchanges that go on.
    pub(super) fn going(&self) -> usize {
        self.going.get()
    }

    pub(super) fn has_room(&self) -> bool {
        self.going() < self.requests.most().min(EXCHANGES_MAX)
    }

    /// One more.
    pub(super) fn begin(self: &Rc<Self>) -> (Asking, Seat) {
        self.going.set(self.going() + 1);
        self.quiet_since.set(None);
        (self.requests.begin(self.is_secure), Seat(self.clone()))
    }

    /// Nothing has gone on for a while: it may wait with as little memory as can be.
    pub(super) fn trim(&self) {
        self.requests.trim();
    }

    /// For how long nothing has gone on, as far as was asked.
    pub(super) fn quiet_since(&self, now: Instant) -> Option<Instant> {
        if self.going() > 0 {
            return None;
        }
        let since = self.quiet_since.get().unwrap_or(now);
        self.quiet_since.set(Some(since));
        Some(since)
    }
}

/// One exchange's place on its connection.
pub(super) struct Seat(Rc<Carrier>);

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Seat").field(&self.0).finish()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.going.set(self.0.going() - 1);
    }
}
