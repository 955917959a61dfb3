//! An accepted connection, as the drivers have it.

use std::{cell::OnceCell, net::SocketAddr, rc::Rc};

use super::{access::Entry, local::Local, timer::Deadline};
use crate::{
    config::Snapshot,
    limits::Permit,
    metrics::ListenerMetrics,
    model::{ListenerId, reason::CloseReason},
    ring::Socket,
};

/// A connection as its driver takes it over; what it holds is given back on drop.
pub(super) struct Accepted {
    pub(super) listener: ListenerId,
    pub(super) client: SocketAddr,
    pub(super) socket: Socket,
    pub(super) entry: Entry,
    port: OnceCell<u16>,
    local: Rc<Local>,
    _permit: Permit,
}

impl Accepted {
    /// Counts the connection as open. `permit` is its place among those allowed.
    pub(super) fn new(
        local: &Rc<Local>,
        listener: ListenerId,
        client: SocketAddr,
        socket: Socket,
        permit: Permit,
    ) -> Self {
        let (entry, port) = (Entry::default(), OnceCell::new());
        let accepted = Self { listener, client, socket, entry, port, local: local.clone(), _permit: permit };
        accepted.metrics().accepted.add(1);
        accepted.metrics().open.add(1);
        accepted
    }

    /// Port that the client connected to, asked of the kernel once; 0 where it does not say.
    pub(super) fn port(&self) -> u16 {
        *self.port.get_or_init(|| {
            let address = socket2::SockRef::from(&self.socket).local_addr().ok();
            address.and_then(|address| address.as_socket()).map_or(0, |address| address.port())
        })
    }

    pub(super) fn metrics(&self) -> &ListenerMetrics {
        self.local.metrics.listener(self.listener)
    }

    /// A request or relay begins.
    pub(super) fn begin(&self, snapshot: &Snapshot) {
        self.entry.begin(self.local.access_log.as_ref(), snapshot, self.listener, self.client);
    }

    /// The request or relay that runs does not end well: counts and logs why.
    pub(super) fn fail(&self, reason: CloseReason) {
        self.local.count(reason);
        self.entry.fail(reason);
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.metrics().open.sub(1);
    }
}

/// What the parts of one connection's driver share.
pub(super) struct Context {
    pub(super) local: Rc<Local>,
    pub(super) accepted: Accepted,
    pub(super) deadline: Deadline,
}

impl Context {
    /// The name for a passed deadline: the drain's end where that is why it fired.
    pub(super) fn expired(&self, otherwise: CloseReason) -> CloseReason {
        if self.local.is_overdue() { CloseReason::Draining } else { otherwise }
    }

    pub(super) fn count_received(&self, bytes: u64) {
        self.accepted.metrics().received_bytes.add(bytes);
        self.accepted.entry.received(bytes);
    }

    pub(super) fn count_response(&self, status: u16, bytes: u64) {
        let metrics = self.accepted.metrics();
        if let Some(class) = metrics.responses.get((status / 100).saturating_sub(1) as usize) {
            class.add(1);
        }
        metrics.sent_bytes.add(bytes);
    }
}
