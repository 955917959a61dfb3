//! One client's datagrams to one backend.

use std::{cell::Cell, net::Shutdown, rc::Rc};

use super::{access::Entry, choice::Place, local::Local};
use crate::{
    limits::Permit,
    model::{BackendId, ListenerId, reason::CloseReason},
    relay::flows::FlowKey,
    ring::Socket,
};

/// What a flow holds until its last owner lets go: the table, or the task that passes its answers back.
pub(super) struct Flow {
    pub(super) key: FlowKey,
    pub(super) backend: BackendId,
    /// Connected to the backend.
    pub(super) socket: Socket,
    pub(super) entry: Entry,
    local: Rc<Local>,
    listener: ListenerId,
    has_ended: Cell<bool>,
    place: Place,
    _permit: Permit,
}

impl Flow {
    /// Counts it as open.
    pub(super) fn new(
        local: &Rc<Local>,
        listener: ListenerId,
        key: FlowKey,
        place: Place,
        socket: Socket,
        permit: Permit,
    ) -> Self {
        let metrics = local.metrics.listener(listener);
        metrics.accepted.add(1);
        metrics.open.add(1);
        let backend = place.backend().id;
        let of_backend = local.metrics.backend(backend);
        of_backend.connects.add(1);
        of_backend.exchanges.add(1);
        Self {
            key,
            backend,
            place,
            socket,
            entry: Entry::default(),
            local: local.clone(),
            listener,
            has_ended: Cell::new(false),
            _permit: permit,
        }
    }

    /// Nothing more goes either way. `reason`: it did not end well.
    pub(super) fn end(&self, reason: Option<CloseReason>) {
        if self.has_ended.replace(true) {
            return;
        }
        if let Some(reason) = reason {
            self.local.count(reason);
            self.entry.fail(reason);
        }
        self.entry.end();
        // Wakes the task that waits for answers.
        self.socket.shutdown(Shutdown::Both);
    }

    /// It goes on elsewhere, at the same socket.
    pub(super) fn leave(&self) {
        if !self.has_ended.replace(true) {
            self.entry.end();
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.get()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.local.metrics.listener(self.listener).open.sub(1);
        self.place.give_back(&self.local);
    }
}
