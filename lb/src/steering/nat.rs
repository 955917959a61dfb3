//! Translated flows: sources dealt out to VIPs, entries that have expired removed, and what there is, for people.
//!
//! Rules of the entries stand in `lb_ebpf::nat`. Control only removes, and only established flows: half-open ones
//! give way by themselves.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    ops::Range,
};

use lb_abi::{
    be::Be16,
    bounds::NAT_SOURCES_MAX,
    flow::FlowKey,
    meta::{FLAG_NAT, Meta},
    nat::{
        CLOSING_TICKS, FIN, FORWARD, NatEntry, NatEvent, NatPool, RESET_TICKS, RST, idle_ticks, is_idle,
        later,
    },
    vip::FORWARD_NAT,
};

use super::{
    activity::WINDOW_TICKS,
    desired::{Checked, DesiredVip, mapped},
    error::{Error, Result},
    maps::NatPlace,
    store::Store,
    sync::Sync,
};
use crate::model::BackendId;

/// Entries looked at in one tick: a full map is looked through in 16 ticks, some 20 ms of each.
const ENTRIES_PER_TICK: usize = 65_536;
/// A flow counts as active for so long after its last packet: as others do at most.
const ACTIVE_TICKS: u32 = 2 * WINDOW_TICKS;
/// Entries of one reading.
const BATCH: usize = 4096;

/// The maps of translated flows, as control sees them.
pub trait NatStore {
    /// Pools that are not empty, by VIP index.
    fn nat_pools(&self) -> Result<BTreeMap<u32, NatPool>>;
    /// Writes one.
    fn put_nat_pool(&mut self, vip: u32, pool: &NatPool) -> Result<()>;
    /// All of them; who is not dealt out is zero or old.
    fn nat_sources(&self) -> Result<Vec<[u8; 16]>>;
    /// Writes one.
    fn put_nat_source(&mut self, index: u32, source: &[u8; 16]) -> Result<()>;
    /// Cores that the machine may ever have.
    fn nat_cores(&self) -> Result<u32>;
    /// Established entries from a place on; whether these were the last.
    fn nat_read(&self, place: &mut NatPlace, count: usize) -> Result<(Vec<(FlowKey, NatEntry)>, bool)>;
    /// The same of half-open ones.
    fn nat_read_opening(
        &self,
        place: &mut NatPlace,
        count: usize,
    ) -> Result<(Vec<(FlowKey, NatEntry)>, bool)>;
    /// An established entry.
    fn nat_get(&self, key: &FlowKey) -> Result<Option<NatEntry>>;
    /// One that is gone already is no error.
    fn nat_remove(&mut self, key: &FlowKey) -> Result<()>;
}

/// What control remembers of translated flows.
#[derive(Debug, Default)]
pub(super) struct Nat {
    pools: BTreeMap<u32, NatPool>,
    sources: Vec<[u8; 16]>,
    place: NatPlace,
    /// Flows met since the reading began anew.
    met: Met,
    /// Flows met in the last whole reading.
    last: Met,
    expired: u64,
}

/// Established flows.
#[derive(Debug, Default)]
struct Met {
    all: u64,
    /// Those whose client sent something lately, by VIP index and backend.
    active: BTreeMap<(u32, BackendId), u64>,
}

impl Met {
    fn add(&mut self, entry: &NatEntry, now: u32) {
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
    fn addresses(&self, pool: &NatPool) -> &[[u8; 16]] {
        self.sources.get(range(pool)).unwrap_or_default()
    }
}

fn range(pool: &NatPool) -> Range<usize> {
    pool.first as usize..pool.first as usize + pool.count as usize
}

impl Sync {
    /// Deals sources out, before a VIP asks for them: pools that stay keep their places, others get free ones.
    pub(super) fn put_nat(
        &mut self,
        store: &mut impl Store,
        checked: &Checked<'_>,
        index: impl Fn(&DesiredVip) -> u32,
    ) -> Result<()> {
        let cores = store.nat_cores()?;
        let mut wanted: BTreeMap<u32, Vec<[u8; 16]>> = BTreeMap::new();
        for vip in checked.keys.values().filter(|vip| !vip.nat_source.is_empty()) {
            wanted.insert(index(vip), vip.nat_source.iter().copied().map(mapped).collect());
        }
        if wanted.is_empty() && self.nat.pools.is_empty() {
            return Ok(());
        }
        // Replies of the first flow must be looked for.
        if !wanted.is_empty() {
            self.put_meta(store, Meta { flags: self.meta.flags | FLAG_NAT, ..self.meta })?;
        }
        let mut next: BTreeMap<u32, NatPool> = BTreeMap::new();
        for (vip, sources) in &wanted {
            let Some(pool) = self.nat.pools.get(vip) else { continue };
            if pool.cores == cores && self.nat.addresses(pool) == sources {
                next.insert(*vip, *pool);
            }
        }
        // Places of pools that go are not given away at once: a packet may have read the pool.
        let mut taken: Vec<Range<usize>> = self.nat.pools.values().map(range).collect();
        for (vip, sources) in &wanted {
            if next.contains_key(vip) {
                continue;
            }
            let first = gap(&taken, sources.len()).or_else(|| {
                let kept: Vec<_> = next.values().map(range).collect();
                gap(&kept, sources.len())
            });
            let max = NAT_SOURCES_MAX as usize;
            let first = first.ok_or(Error::Bounds { what: "nat sources", is: max + 1, max })?;
            for (at, source) in (first..).zip(sources) {
                store.put_nat_source(at as u32, source)?;
                if let Some(place) = self.nat.sources.get_mut(at) {
                    *place = *source;
                }
            }
            let pool = NatPool { first: first as u32, count: sources.len() as u32, cores, pad: 0 };
            store.put_nat_pool(*vip, &pool)?;
            taken.push(range(&pool));
            next.insert(*vip, pool);
        }
        for vip in self.nat.pools.keys().filter(|vip| !next.contains_key(vip)) {
            store.put_nat_pool(*vip, &NatPool::default())?;
        }
        self.nat.pools = next;
        Ok(())
    }

    /// Removes established flows that have expired. Looks at a bounded number of entries and goes on there at the
    /// next tick.
    pub(super) fn expire_nat(&mut self, store: &mut impl Store, now: u32) -> Result<()> {
        if self.meta.flags & FLAG_NAT == 0 {
            return Ok(());
        }
        let mut looked_at = 0;
        while looked_at < ENTRIES_PER_TICK {
            let (entries, is_last) = store.nat_read(&mut self.nat.place, BATCH)?;
            looked_at += entries.len().max(1);
            for (key, entry) in entries {
                let fate = match may_have_expired(&key, &entry, now) {
                    true => expire(store, &key, now)?,
                    false => Fate::Lives,
                };
                match fate {
                    Fate::Lives if entry.flags & FORWARD != 0 => self.nat.met.add(&entry, now),
                    Fate::Lives => {}
                    Fate::Ended => self.nat.expired += 1,
                    Fate::Gone => {}
                }
            }
            if is_last {
                self.nat.last = std::mem::take(&mut self.nat.met);
                return self.forget_nat(store);
            }
        }
        Ok(())
    }

    /// The last VIP that translates has gone, and the last flow after it: replies are not looked for any more.
    fn forget_nat(&mut self, store: &mut impl Store) -> Result<()> {
        let is_used = self.vips.values().any(|entry| entry.flags & FORWARD_NAT != 0);
        if self.nat.last.all > 0 || is_used {
            return Ok(());
        }
        self.put_meta(store, Meta { flags: self.meta.flags & !FLAG_NAT, ..self.meta })
    }

    /// Counts, without events.
    pub(super) fn nat_stats(&self) -> NatStats {
        NatStats { flows: self.nat.last.all, expired: self.nat.expired, ..NatStats::default() }
    }

    /// Established flows whose client sent something lately, by VIP index and backend.
    pub(super) fn nat_active(&self) -> impl Iterator<Item = (u32, BackendId, u64)> + '_ {
        self.nat.last.active.iter().map(|((vip, backend), flows)| (*vip, *backend, *flows))
    }
}

/// First of `len` free places.
fn gap(taken: &[Range<usize>], len: usize) -> Option<usize> {
    let mut taken: Vec<_> = taken.iter().filter(|range| !range.is_empty()).cloned().collect();
    taken.sort_by_key(|range| range.start);
    let mut at = 0;
    for range in taken {
        if range.start >= at + len {
            break;
        }
        at = at.max(range.end);
    }
    (at + len <= NAT_SOURCES_MAX as usize).then_some(at)
}

/// What an entry alone can say; most are busy, and their peer need not be read.
fn may_have_expired(key: &FlowKey, entry: &NatEntry, now: u32) -> bool {
    let shortest = if entry.flags & RST != 0 {
        RESET_TICKS
    } else if entry.flags & FIN != 0 {
        CLOSING_TICKS
    } else {
        idle_ticks(key.protocol, [0, 0])
    };
    // A peer's RST shortens this one's life, too, and its own pass finds that.
    is_idle(entry.seen, now, shortest)
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lives,
    /// Its flow was removed.
    Ended,
    /// It was gone already, or was all that was left of a flow.
    Gone,
}

/// Removes a pair if it has expired by both its entries, read now; or an entry without a peer. The forward entry
/// goes first: a packet by it would leave by a port that may be another flow's next.
fn expire(store: &mut impl Store, key: &FlowKey, now: u32) -> Result<Fate> {
    let Some(entry) = store.nat_get(key)? else { return Ok(Fate::Gone) };
    let peer_key = entry.peer(key.protocol);
    let peer = store.nat_get(&peer_key)?.filter(|peer| peer.peer(key.protocol) == *key);
    let Some(peer) = peer else {
        if !is_idle(entry.seen, now, RESET_TICKS) {
            return Ok(Fate::Lives);
        }
        store.nat_remove(key)?;
        return Ok(Fate::Gone);
    };
    let idle = idle_ticks(key.protocol, [entry.flags, peer.flags]);
    if !is_idle(later(entry.seen, peer.seen), now, idle) {
        return Ok(Fate::Lives);
    }
    let (forward, reverse) = if entry.flags & FORWARD != 0 { (key, &peer_key) } else { (&peer_key, key) };
    store.nat_remove(forward)?;
    store.nat_remove(reverse)?;
    Ok(Fate::Ended)
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
