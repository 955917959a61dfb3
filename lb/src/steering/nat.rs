//! Translated flows: what control remembers of them, and what there is, for people. Rules of their entries stand in
//! `lb_ebpf::nat`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    ops::Range,
};

use lb_abi::{
    activity::WINDOW_TICKS,
    be::Be16,
    flow::FlowKey,
    nat::{FIN, FORWARD, NatEntry, NatEvent, NatPool, RST, is_idle},
};

use super::{
    error::Result,
    maps::NatPlace,
    store::{NatStore, Store},
};
use crate::model::BackendId;

/// A flow counts as active for so long after its last packet: as others do at most.
const ACTIVE_TICKS: u32 = 2 * WINDOW_TICKS;
/// Entries of one reading.
pub(super) const BATCH: usize = 4096;

/// What control remembers of translated flows.
#[derive(Debug, Default)]
pub(super) struct Nat {
    pub(super) pools: BTreeMap<u32, NatPool>,
    pub(super) sources: Vec<[u8; 16]>,
    pub(super) place: NatPlace,
    /// Flows met since the reading began anew.
    pub(super) met: Met,
    /// Flows met in the last whole reading.
    pub(super) last: Met,
    pub(super) expired: u64,
}

/// Established flows.
#[derive(Debug, Default)]
pub(super) struct Met {
    pub(super) all: u64,
    /// Those whose client sent something lately, by VIP index and backend.
    pub(super) active: BTreeMap<(u32, BackendId), u64>,
}

impl Met {
    pub(super) fn add(&mut self, entry: &NatEntry, now: u32) {
        self.all += 1;
        if !is_idle(entry.seen, now, ACTIVE_TICKS) {
            *self.active.entry((u32::from(entry.vip), BackendId(entry.backend))).or_default() += 1;
        }
    }
}

/// Counts of translated flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatStats {
    /// Established, when last looked through.
    pub flows: u64,
    /// Removed by this process since it began, as they had expired.
    pub expired: u64,
    /// By [`NatEvent`], in its order.
    pub events: [u64; NatEvent::ALL.len()],
}

/// One translated flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatFlow {
    /// Client.
    pub client: SocketAddr,
    /// VIP.
    pub vip: SocketAddr,
    /// What the backend takes for the client.
    pub source: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Where it goes.
    pub backend: BackendId,
    /// Tick of the client's last packet.
    pub seen: u32,
    /// Where it stands.
    pub state: NatState,
}

/// Where a translated flow stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatState {
    /// The client has not shown that it hears the backend.
    HalfOpen,
    /// It has.
    Established,
    /// A FIN or RST of the client's was seen.
    Closing,
}

impl NatState {
    /// For a column.
    pub const fn words(self) -> &'static str {
        match self {
            Self::HalfOpen => "half-open",
            Self::Established => "established",
            Self::Closing => "closing",
        }
    }
}

impl Nat {
    /// Reads what the maps hold.
    pub(super) fn adopt(store: &impl NatStore) -> Result<Self> {
        Ok(Self { pools: store.nat_pools()?, sources: store.nat_sources()?, ..Self::default() })
    }

    /// Addresses of a pool.
    pub(super) fn addresses(&self, pool: &NatPool) -> &[[u8; 16]] {
        self.sources.get(range(pool)).unwrap_or_default()
    }
}

pub(super) fn range(pool: &NatPool) -> Range<usize> {
    pool.first as usize..pool.first as usize + pool.count as usize
}

/// The first `max` flows, and how many more there are.
pub(super) fn flows(store: &impl Store, max: usize) -> Result<(Vec<NatFlow>, usize)> {
    let (mut flows, mut omitted) = (Vec::new(), 0);
    let mut add = |entries: Vec<(FlowKey, NatEntry)>, is_half_open: bool| {
        for (key, entry) in entries.into_iter().filter(|(_, entry)| entry.flags & FORWARD != 0) {
            match flows.len() < max {
                true => flows.push(flow(&key, &entry, is_half_open)),
                false => omitted += 1,
            }
        }
    };
    for is_half_open in [false, true] {
        let mut place = NatPlace::default();
        loop {
            let (entries, is_last) = match is_half_open {
                true => store.nat_read_opening(&mut place, BATCH)?,
                false => store.nat_read(&mut place, BATCH)?,
            };
            add(entries, is_half_open);
            if is_last {
                break;
            }
        }
    }
    Ok((flows, omitted))
}

fn flow(key: &FlowKey, entry: &NatEntry, is_half_open: bool) -> NatFlow {
    let end = |address, port: Be16| {
        let ip: IpAddr = Ipv6Addr::from(address).to_canonical();
        SocketAddr::new(ip, port.host())
    };
    NatFlow {
        client: end(key.source, key.source_port),
        vip: end(key.destination, key.destination_port),
        source: end(entry.source, entry.source_port),
        protocol: key.protocol,
        backend: BackendId(entry.backend),
        seen: entry.seen,
        state: match (is_half_open, entry.flags & (FIN | RST)) {
            (true, _) => NatState::HalfOpen,
            (false, 0) => NatState::Established,
            (false, _) => NatState::Closing,
        },
    }
}
