//! An accepted connection, as the drivers have it.

use std::{cell::OnceCell, net::SocketAddr, rc::Rc};

use super::{
    access::Entry,
    local::{Local, Task},
    mutant::{Mutant, is_planted},
    secure::Secure,
    sink::Sink,
    timer::Deadline,
};
use crate::{
    config::{Limits, Snapshot},
    limits::Permit,
    metrics::ListenerMetrics,
    model::{ListenerId, reason::CloseReason},
    relay::proxy::Ends,
    ring::Socket,
};

/// A connection as its driver takes it over; what it holds is given back on drop.
///
/// A connection that waits is little more than this: what another field can tell stands here only once.
pub(super) struct Accepted {
    pub(super) sink: Sink,
    pub(super) entry: Entry,
    /// The client's, by the word of a trusted proxy where there is one; its address is in `permit`.
    client_port: u16,
    port: OnceCell<u16>,
    place: Place,
    /// What the client connected to, by the word of a trusted proxy.
    told: Option<Box<SocketAddr>>,
    task: Task,
}

/// Its place among the connections that are allowed.
enum Place {
    Own(Permit),
    /// That of the connection which it is an exchange of.
    Of(Rc<Accepted>),
}

impl Accepted {
    /// Counts the connection as open, and holds the worker's end. `permit` is its place among those allowed.
    pub(super) fn new(local: &Rc<Local>, client: SocketAddr, socket: Socket, permit: Permit) -> Self {
        let accepted = Self {
            sink: socket.into(),
            entry: Entry::default(),
            client_port: client.port(),
            port: OnceCell::new(),
            place: Place::Own(permit),
            told: None,
            task: local.task(),
        };
        accepted.metrics().accepted.add(1);
        accepted.metrics().open.add(1);
        accepted
    }

    /// One exchange of a connection that carries several.
    pub(super) fn of_stream(connection: &Rc<Self>, sink: Sink) -> Self {
        Self {
            sink,
            entry: Entry::default(),
            client_port: connection.client_port,
            port: connection.port.clone(),
            told: connection.told.clone(),
            task: connection.local().task(),
            place: Place::Of(connection.clone()),
        }
    }

    /// What lies between the client and the bytes of all its exchanges.
    pub(super) fn secure(&self) -> Option<&Secure> {
        match &self.place {
            Place::Own(_) => self.sink.secure(),
            Place::Of(connection) => connection.secure(),
        }
    }

    fn permit(&self) -> &Permit {
        match &self.place {
            Place::Own(permit) => permit,
            Place::Of(connection) => connection.permit(),
        }
    }

    pub(super) fn local(&self) -> &Rc<Local> {
        self.task.local()
    }

    pub(super) fn listener(&self) -> ListenerId {
        self.permit().listener()
    }

    /// By the word of a trusted proxy, where there is one.
    pub(super) fn client(&self) -> SocketAddr {
        SocketAddr::new(self.permit().address(), self.client_port)
    }

    /// Who it is was told, or (`None`) is who connected.
    ///
    /// # Errors
    /// [`CloseReason::ConnectionsPerIp`].
    pub(super) fn name(&mut self, ends: Option<Ends>, limits: &Limits) -> Result<(), CloseReason> {
        let Place::Own(permit) = &mut self.place else { return Ok(()) };
        let mut address = permit.address();
        if let Some(Ends { client, destination }) = ends {
            (address, self.client_port) = (client.ip(), client.port());
            self.told = Some(Box::new(destination));
        }
        permit.name(address, limits)
    }

    /// What the client connected to, by the word of a trusted proxy.
    pub(super) fn told(&self) -> Option<SocketAddr> {
        self.told.as_deref().copied()
    }

    /// What the client connected to; `None` where the kernel does not say.
    pub(super) fn destination(&self) -> Option<SocketAddr> {
        let bound = || socket2::SockRef::from(self.sink.socket()).local_addr().ok()?.as_socket();
        self.told().or_else(bound)
    }

    /// Port that the client connected to, asked of the kernel once; 0 where it does not say.
    pub(super) fn port(&self) -> u16 {
        *self.port.get_or_init(|| {
            let address = socket2::SockRef::from(self.sink.socket()).local_addr().ok();
            address.and_then(|address| address.as_socket()).map_or(0, |address| address.port())
        })
    }

    pub(super) fn metrics(&self) -> &ListenerMetrics {
        self.local().metrics.listener(self.listener())
    }

    /// A request or relay begins.
    pub(super) fn begin(&self, snapshot: &Snapshot) {
        self.entry.begin(self.local().access_log(), snapshot, self.listener(), self.client());
        if let Some(secure) = self.secure() {
            self.entry.secured(&secure.terms);
        }
    }

    /// The request or relay that runs does not end well: counts and logs why.
    pub(super) fn fail(&self, reason: CloseReason) {
        self.local().count(reason);
        if !is_planted(Mutant::CountsNothing) {
            self.metrics().reasons.of(reason).add(1);
        }
        self.entry.fail(reason);
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        if matches!(self.place, Place::Own(_)) {
            self.metrics().open.sub(1);
        }
    }
}

/// What the parts of one connection's driver share.
pub(super) struct Context {
    pub(super) accepted: Accepted,
    pub(super) deadline: Deadline,
}

impl Context {
    pub(super) fn local(&self) -> &Rc<Local> {
        self.accepted.local()
    }

    /// The name for a passed deadline: the drain's end where that is why it fired.
    pub(super) fn expired(&self, otherwise: CloseReason) -> CloseReason {
        match self.local().is_overdue() {
            true => CloseReason::Draining,
            false if self.deadline.is_cut() => CloseReason::BackendRemoved,
            false => otherwise,
        }
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
