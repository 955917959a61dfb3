//! What is said in a hand-over, as JSON. A change that an older process would misread takes another [`FORMAT`].

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

/// Of all of this.
pub const FORMAT: u32 = 1;

/// Kinds of messages; their numbers never change.
pub(super) mod kind {
    /// Old to new: [`super::Offer`].
    pub(crate) const OFFER: u32 = 1;
    /// New to old: why not, as text.
    pub(crate) const REFUSED: u32 = 2;
    /// New to old: [`super::Ready`].
    pub(crate) const READY: u32 = 3;
    /// Old to new: [`super::Go`].
    pub(crate) const GO: u32 = 4;
    /// Old to new: [`super::Totals`].
    pub(crate) const TOTALS: u32 = 5;
}

/// What goes over. With it come descriptors, in this order: of locks, of the admin API's unix socket and its TCP
/// endpoint, of the sockets of each group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// [`FORMAT`].
    pub format: u32,
    /// Of the old program.
    pub version: String,
    /// Of the old process.
    pub pid: u32,
    /// How many directories are locked.
    pub locks: usize,
    /// The admin API's socket.
    pub admin: Option<PathBuf>,
    /// Its TCP endpoint.
    pub http: Option<SocketAddr>,
    /// Addresses that are listened at.
    pub groups: Vec<GroupOffer>,
    /// Backends that are down by their checks.
    pub down: Vec<Down>,
    /// Backends that exchanges speak against, or spoke against not long ago. None from programs that do not say so.
    #[serde(default)]
    pub ejections: Vec<Ejections>,
    /// Older processes that still drain.
    pub leaving: Vec<Leaving>,
    /// What tickets are sealed and opened with, the one that seals first; an older process has none to give.
    #[serde(default, skip_serializing_if = "Secrets::is_empty")]
    pub ticket_keys: Secrets,
}

/// What goes over the socket and nowhere else. Prints redacted.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secrets(pub Vec<Vec<u8>>);

impl Secrets {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({}, redacted)", self.0.len())
    }
}

/// The sockets of one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupOffer {
    /// As the config has it; of ranges, where their sockets are parked.
    pub address: SocketAddr,
    /// As it is bound, its port never 0.
    pub bound: SocketAddr,
    /// For datagrams.
    pub is_udp: bool,
    /// What `lb_lookup` gives to them, as text.
    pub ranges: Vec<String>,
    /// How many; the n-th is worker n's.
    pub sockets: usize,
}

/// A backend that is down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// Its pool.
    pub pool: String,
    /// Its address, as in the config.
    pub backend: String,
    /// Why.
    pub reason: Option<String>,
    /// How long it has been.
    pub seconds: u64,
}

/// A backend that was taken out by what exchanges met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejections {
    /// Its pool.
    pub pool: String,
    /// Its address, as in the config.
    pub backend: String,
    /// How often, of what still makes the next time longer.
    pub count: u32,
    /// How long ago it was taken out last, or came back.
    pub since_ms: u64,
    /// How long it still is out; `None`: it is in again.
    pub left_ms: Option<u64>,
    /// Why it is out.
    pub reason: Option<String>,
}

/// A process that drains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Which.
    pub pid: u32,
    /// How long it has drained.
    pub seconds: u64,
}

/// The new process is the one from now on. With it come descriptors: of each flow's socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Go {
    /// What the old one has counted.
    pub totals: Totals,
    /// Flows of datagrams that go on.
    pub flows: Vec<FlowOffer>,
}

/// A flow of datagrams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowOffer {
    /// Which of [`Offer::groups`] it came in by.
    pub group: usize,
    /// And by which of the sockets there.
    pub worker: usize,
    /// Who asks.
    pub client: SocketAddr,
    /// The address of ours that is asked, where the socket has more than one.
    pub asked: Option<IpAddr>,
    /// Who answers, by its address in the config.
    pub backend: String,
}

/// The new process has armed everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Of the new program.
    pub version: String,
}

/// What a process that leaves has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Its whole exposition of metrics.
    pub metrics: String,
    /// Connections that are still open.
    pub connections: u64,
    /// When it ends at the latest; 0 in [`Go`].
    pub seconds_left: u64,
}
