//! Sources dealt out to VIPs, and translated flows that have expired removed, in the order of a sync.
//!
//! Rules of the entries stand in `lb_ebpf::nat`. Control only removes, and only established flows: half-open ones
//! give way by themselves.

use std::{collections::BTreeMap, ops::Range};

use lb_abi::{
    bounds::NAT_SOURCES_MAX,
    flow::FlowKey,
    meta::{FLAG_NAT, Meta},
    nat::{CLOSING_TICKS, FIN, FORWARD, NatEntry, NatPool, RESET_TICKS, RST, idle_ticks, is_idle, later},
    vip::FORWARD_NAT,
};

use super::{
    super::{
        desired::{Checked, DesiredVip},
        error::{Error, Result},
        nat::{BATCH, NatStats, range},
        store::Store,
        terms::mapped,
    },
    Sync,
};
use crate::model::BackendId;

/// Entries looked at in one tick: a full map is looked through in 16 ticks, some 20 ms of each.
const ENTRIES_PER_TICK: usize = 65_536;
impl Sync {
    /// Deals sources out, before a VIP asks for them: pools that stay keep their places, others get free ones.
    pub(in super::super) fn put_nat(
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
    pub(in super::super) fn expire_nat(&mut self, store: &mut impl Store, now: u32) -> Result<()> {
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
    pub(in super::super) fn nat_stats(&self) -> NatStats {
        NatStats { flows: self.nat.last.all, expired: self.nat.expired, ..NatStats::default() }
    }

    /// Established flows whose client sent something lately, by VIP index and backend.
    pub(in super::super) fn nat_active(&self) -> impl Iterator<Item = (u32, BackendId, u64)> + '_ {
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
