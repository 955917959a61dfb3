//! What the packet path tells the admin API: plain numbers, so that admin knows nothing of maps.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use lb_abi::{
    counter::{FlowEvent, Traffic},
    nat::NatEvent,
    quic::QuicEvent,
    reason::Reason,
    trace::Trace,
};
use serde::Serialize;

use super::capture::{Feed, Wish};
use crate::{
    config::{Steer, XdpMode},
    model::{BackendId, Question},
};

/// One reading of the packet path's counters, summed over cores.
#[derive(Clone, Debug, Default)]
pub struct Packets {
    /// Interfaces that carry `lb_ingress`.
    pub interfaces: Vec<Attached>,
    /// By [`Reason`], in its order.
    pub reasons: [u64; Reason::ALL.len()],
    /// Dropped packets by the interface they came in by.
    pub drops: Vec<InterfaceDrops>,
    /// By [`FlowEvent`], in its order.
    pub flow_events: [u64; FlowEvent::ALL.len()],
    /// By [`QuicEvent`], in its order.
    pub quic_events: [u64; QuicEvent::ALL.len()],
    /// By VIP's name.
    pub vips: Vec<(Arc<str>, Traffic)>,
    /// By backend.
    pub backends: Vec<(BackendId, Traffic)>,
    /// Flows that are alive, about, by VIP's name; those that cannot be told apart are absent.
    pub active_vips: Vec<(Arc<str>, u64)>,
    /// The same by backend.
    pub active_backends: Vec<(BackendId, u64)>,
    /// Slots that just changed.
    pub slots_open: u64,
    /// Slots that only wait for strays.
    pub slots_closed: u64,
    /// Tables.
    pub tables: Vec<TableDigest>,
    /// Translated flows.
    pub nat: NatReport,
    /// Listener groups under `lb_steer`.
    pub steer: Vec<SteerReport>,
    /// Whether XDP spreads listeners' packets over the workers' cores.
    pub spread: Option<Spread>,
    /// Where XDP may answer SYN floods: what came back.
    pub cookies: Option<Cookies>,
}

impl Packets {
    /// Packets that met a reason.
    pub fn reason(&self, reason: Reason) -> u64 {
        let count = Reason::ALL.iter().zip(self.reasons).find(|(other, _)| **other == reason);
        count.map_or(0, |(_, count)| count)
    }
}

/// What `xdp.spread` came to.
#[derive(Clone, Debug, Serialize)]
pub struct Spread {
    /// Whether packets are spread.
    pub on: bool,
    /// Why.
    pub why: String,
}

/// ACKs of this network namespace that brought a SYN cookie back, whoever had sent it, as the kernel judged them.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cookies {
    /// Each opened a connection.
    pub accepted: u64,
    /// Wrong or too old.
    pub refused: u64,
}

/// What was dropped of what came in by one interface.
#[derive(Clone, Debug)]
pub struct InterfaceDrops {
    /// Its name; none: those without counters of their own.
    pub interface: Option<String>,
    /// By reason; only reasons for which packets are dropped.
    pub counts: Vec<(Reason, u64)>,
}

impl InterfaceDrops {
    /// Its name for people and in metrics.
    pub fn name(&self) -> &str {
        self.interface.as_deref().unwrap_or("other")
    }

    /// Whether it is shown: the rest, only when there is something in it.
    pub fn is_shown(&self) -> bool {
        self.interface.is_some() || self.counts.iter().any(|(_, count)| *count > 0)
    }
}

impl Packets {
    /// Flows of a VIP that are alive, about.
    pub fn active_of_vip(&self, vip: &str) -> Option<u64> {
        self.active_vips.iter().find(|(of, _)| &**of == vip).map(|(_, flows)| *flows)
    }

    /// Flows of a backend that are alive, about; none of one that no VIP uses.
    pub fn active_of_backend(&self, backend: BackendId) -> Option<u64> {
        self.active_backends.iter().find(|(of, _)| *of == backend).map(|(_, flows)| *flows)
    }
}

/// One interface with `lb_ingress`.
#[derive(Clone, Debug, Serialize)]
pub struct Attached {
    /// Its name.
    pub interface: String,
    /// What we got.
    pub mode: XdpMode,
    /// Whether an earlier run's program was found there and replaced without a gap.
    pub adopted: bool,
    /// Why it is not native, where that was not asked for.
    pub fallback: Option<String>,
}

/// What a pool's base table is: nodes with equal digests send a flow to the same backend.
#[derive(Clone, Debug, Serialize)]
pub struct TableDigest {
    /// Pool.
    pub pool: Arc<str>,
    /// Hexadecimal.
    pub digest: String,
    /// Slots that just changed.
    pub open: u64,
    /// Slots that only wait for strays.
    pub closed: u64,
    /// Why they do, oldest first.
    pub moves: Vec<SlotMove>,
}

/// Moving slots that one change gave their present owner.
#[derive(Clone, Debug, Serialize)]
pub struct SlotMove {
    /// Which change, in words.
    pub why: String,
    /// How long ago; absent where an earlier process saw it.
    pub since_seconds: Option<u64>,
    /// Slots that are open.
    pub open: u64,
    /// Slots that are closed.
    pub closed: u64,
}

/// How connections of one listener found their worker.
#[derive(Clone, Debug, Serialize)]
pub struct SteerReport {
    /// Listener.
    pub listener: Arc<str>,
    /// Core or hash; what `auto` became.
    pub mode: Steer,
    /// Why.
    pub why: Arc<str>,
    /// Chosen by core.
    pub by_core: u64,
    /// Chosen by hash.
    pub by_hash: u64,
    /// The chosen socket was missing; the kernel chose.
    pub missing: u64,
    /// Given to another worker, as their own lagged.
    pub relieved: u64,
}

/// Counts of translated flows.
#[derive(Clone, Copy, Debug, Default)]
pub struct NatReport {
    /// Established, when last looked through.
    pub flows: u64,
    /// Removed as they had expired, since this process began.
    pub expired: u64,
    /// By [`NatEvent`], in its order.
    pub events: [u64; NatEvent::ALL.len()],
}

/// What is remembered of flows.
#[derive(Clone, Debug, Default)]
pub struct FlowList {
    /// As many as one answer shows.
    pub flows: Vec<Flow>,
    /// How many more there are.
    pub omitted: usize,
}

/// One flow; remembered while its slot of a table is moving, or as it is translated.
#[derive(Clone, Debug)]
pub struct Flow {
    /// VIP that remembers a client's flows, or those to a port, as one.
    pub group_of: Option<Arc<str>>,
    /// Client.
    pub source: SocketAddr,
    /// VIP.
    pub destination: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Where it goes.
    pub backend: BackendId,
    /// Since its last packet.
    pub age: Duration,
    /// Where it stands, in words.
    pub state: &'static str,
    /// What the backend takes for the client, where the flow is translated.
    pub translated: Option<SocketAddr>,
}

/// What XDP would do with a packet.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Interface that the packet was said to come in by.
    pub ingress: String,
    /// Each step.
    pub trace: Trace,
    /// Interface that it would leave by.
    pub egress: Option<String>,
    /// VIP it is addressed to.
    pub vip: Option<Arc<str>>,
    /// Pool whose table was read.
    pub pool: Option<Arc<str>>,
    /// Slot in that table.
    pub slot: Option<u32>,
}

/// Why there is no reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The question cannot be meant so.
    Question(String),
    /// It has to wait until something else is over.
    Busy(String),
    /// The packet path would not answer.
    Failed(String),
}

/// A question to the owner of the packet path, with where to answer.
#[derive(Debug)]
pub enum Ask {
    /// Every counter.
    Packets(flume::Sender<Packets>),
    /// The flow records.
    Flows(flume::Sender<FlowList>),
    /// What would become of a packet.
    Why(Box<Question>, flume::Sender<WhyAnswer>),
    /// A capture, to be begun.
    Capture(Box<Wish>, flume::Sender<Result<Feed, Refusal>>),
}

/// `Ok(None)`: no interface carries our program.
pub type WhyAnswer = Result<Option<Reading>, Refusal>;

/// Asks whoever owns the packet path for a reading.
#[derive(Clone)]
pub struct PacketsSource(Arc<dyn Fn(Ask) + Send + Sync>);

/// Longest wait for a reading: a stuck owner must not hang every scrape.
const READING_MAX: Duration = Duration::from_secs(2);
/// Longest wait for a capture to begin: the verifier takes a second for its programs where nothing else is to be done,
/// and a busy box is what one captures on. Shorter than the wait of who asks.
pub(super) const CAPTURE_MAX: Duration = Duration::from_secs(20);

impl PacketsSource {
    /// `ask` passes the question on and returns at once.
    pub fn new(ask: impl Fn(Ask) + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// One reading; `None` when the owner is gone or does not answer in time.
    pub async fn read(&self) -> Option<Packets> {
        self.answer(READING_MAX, Ask::Packets).await
    }

    /// The flow records; `None` as for [`Self::read`].
    pub async fn read_flows(&self) -> Option<FlowList> {
        self.answer(READING_MAX, Ask::Flows).await
    }

    /// What would become of a packet.
    pub async fn ask_why(&self, question: &Question) -> WhyAnswer {
        let ask = |sender| Ask::Why(Box::new(question.clone()), sender);
        let answer = self.answer(READING_MAX, ask).await;
        answer.unwrap_or_else(|| Err(Refusal::Failed("the packet path does not answer".to_owned())))
    }

    /// Begins a capture.
    pub async fn capture(&self, wish: &Wish) -> Result<Feed, Refusal> {
        let ask = |sender| Ask::Capture(Box::new(wish.clone()), sender);
        let answer = self.answer(CAPTURE_MAX, ask).await;
        answer.unwrap_or_else(|| Err(Refusal::Failed("the packet path does not answer".to_owned())))
    }

    async fn answer<T>(&self, within: Duration, question: impl FnOnce(flume::Sender<T>) -> Ask) -> Option<T> {
        let (sender, receiver) = flume::bounded(1);
        (self.0)(question(sender));
        let timeout = async {
            glommio::timer::sleep(within).await;
            None
        };
        futures_lite::future::or(async { receiver.recv_async().await.ok() }, timeout).await
    }
}

impl fmt::Debug for PacketsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PacketsSource")
    }
}
