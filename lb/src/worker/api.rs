//! What control gives a worker and may tell it.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::Instant,
};

use super::{AccessLogSetup, Compiled, Siblings};
use crate::{
    health::HealthTable,
    limits::Admission,
    model::{BackendId, GroupId, ListenerId, WorkerId},
    tls::KernelSuites,
};

/// Everything a worker needs from its first turn on.
#[derive(Debug)]
pub struct Setup {
    /// Who it is.
    pub id: WorkerId,
    /// The core it is pinned to.
    pub core: usize,
    /// Config.
    pub compiled: Arc<Compiled>,
    /// Written by control.
    pub health: Arc<HealthTable>,
    /// Shared by all workers; touched at accept and close.
    pub admission: Arc<Admission>,
    /// All workers, this one too: it writes its own counters there, and reads the others'.
    pub siblings: Arc<Siblings>,
    /// Where an access log is written.
    pub access_log: Option<AccessLogSetup>,
    /// What the kernel seals of TLS, where bodies are large.
    pub kernel_suites: KernelSuites,
    /// Its own sockets of every listener's group, bound and listening.
    pub listeners: Vec<BoundListener>,
}

/// One listening socket of one worker.
#[derive(Debug)]
pub struct BoundListener {
    /// Which address.
    pub group: GroupId,
    /// Which of its sockets.
    pub place: usize,
    /// Which listener.
    pub listener: ListenerId,
    /// Bound, listening, SO_REUSEPORT.
    pub socket: OwnedFd,
}

/// The same socket under another descriptor.
#[derive(Debug)]
pub struct LentSocket {
    /// Which address.
    pub group: GroupId,
    /// Which of its sockets.
    pub place: usize,
    /// Of the same socket.
    pub socket: OwnedFd,
}

/// A flow of datagrams on its way from one process or worker to another.
#[derive(Debug)]
pub struct LentFlow {
    /// Where it came in.
    pub group: GroupId,
    /// By which of the sockets there.
    pub place: usize,
    /// Who asks.
    pub client: SocketAddr,
    /// The address of ours that is asked, where the socket has more than one.
    pub asked: Option<IpAddr>,
    /// Who answers.
    pub backend: BackendId,
    /// Connected to the backend.
    pub socket: OwnedFd,
}

/// What is different from now on.
#[derive(Debug)]
pub struct Change {
    /// Config.
    pub compiled: Arc<Compiled>,
    /// Its own sockets of addresses that come.
    pub opened: Vec<BoundListener>,
    /// Addresses at which nothing new is taken any more.
    pub closed: Vec<GroupId>,
    /// Addresses that are another listener's now.
    pub moved: Vec<(GroupId, ListenerId)>,
    /// Where an access log is written: of the first config that has one.
    pub access_log: Option<AccessLogSetup>,
    /// The core that it is pinned to from now on, where that is another one.
    pub core: Option<usize>,
    /// When whatever still goes on with backends that leave is ended.
    pub leave_by: Instant,
}

impl Change {
    /// Of the config alone.
    pub fn of(compiled: Arc<Compiled>, leave_by: Instant) -> Self {
        let (opened, closed, moved) = (Vec::new(), Vec::new(), Vec::new());
        Self { compiled, opened, closed, moved, access_log: None, core: None, leave_by }
    }
}

/// What control may tell a worker.
#[derive(Debug)]
pub enum Command {
    /// Turn once: whoever asks wants to see that.
    Look,
    /// Take this over between two turns.
    Change(Box<Change>),
    /// Accept nothing new, finish the rest; whatever is left at the deadline is closed. The worker then ends.
    Drain {
        /// When patience ends.
        deadline: Instant,
    },
    /// Lend every socket that is listened at, to a process that is to listen there, too.
    Lend(flume::Sender<Vec<LentSocket>>),
    /// As [`Command::Drain`], but another process or worker takes what is new: nobody who waits for what may come is
    /// hurried.
    HandOver {
        /// When patience ends.
        deadline: Instant,
        /// Who takes the flows of datagrams, which then go on there.
        flows: Option<flume::Sender<Vec<LentFlow>>>,
    },
    /// Stay, instead of leaving: whoever hears that knows that it has not ended.
    Return {
        /// Who hears it.
        taken: flume::Sender<()>,
        /// Where an access log is written, if there is none yet.
        access_log: Option<AccessLogSetup>,
    },
    /// Take nothing more at these sockets, at which another worker listens, too, and leave the flows of datagrams to it.
    GiveAway {
        /// Which of whose sockets.
        places: Vec<(GroupId, usize)>,
        /// Who takes the flows.
        flows: flume::Sender<Vec<LentFlow>>,
    },
    /// Listen there, too, and go on with these flows.
    TakeOver {
        /// Its own sockets, for datagrams.
        opened: Vec<BoundListener>,
        /// Flows at these sockets.
        flows: Vec<LentFlow>,
    },
    /// Close everything and end.
    Stop,
}
