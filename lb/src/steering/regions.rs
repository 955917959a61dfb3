//! Which part of `SLOTS` holds the table of which pool.
//!
//! A region is `TABLE_LEN` slots. A pool has one; it has a second while a VIP that came from another pool
//! brings its own: such a VIP's region begins as a copy of the one it had, so that its flows notice nothing,
//! and then moves slot by slot like any other change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lb_abi::{
    bounds::{TABLE_LEN, TABLES_MAX},
    vip::VipKey,
};

use super::error::{Error, Result};

/// Place of a region: its first slot is `index * TABLE_LEN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Region(pub(super) u32);

impl Region {
    /// Index of its first slot, as in `VipEntry::table`.
    pub(super) fn first_slot(self) -> u32 {
        self.0 * TABLE_LEN
    }

    /// The region that begins there.
    pub(super) fn of_slot(first: u32) -> Self {
        Self(first / TABLE_LEN)
    }
}

/// Where every wanted key's table will be, and what must be done for that.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Region of every wanted key.
    pub(super) of_key: BTreeMap<VipKey, Region>,
    /// Pool of every region that will be in use.
    pub(super) pools: BTreeMap<Region, Arc<str>>,
    /// Regions to fill: nobody points at them yet.
    pub(super) fresh: BTreeSet<Region>,
    /// Regions to copy before the VIP flips, from -> to.
    pub(super) copies: Vec<(Region, Region)>,
}

/// Plans regions for `wanted` (key -> pool), given where the live keys are and which pool their regions have
/// (nothing of that is known of regions that were adopted).
///
/// A region that leaves use is not given out again by the same plan: its last VIP still points at it.
///
/// # Errors
/// When there are not enough regions.
pub(super) fn plan(
    current: &BTreeMap<VipKey, Region>,
    pools: &BTreeMap<Region, Arc<str>>,
    wanted: &BTreeMap<VipKey, Arc<str>>,
) -> Result<Plan> {
    let in_use: BTreeSet<Region> = current.values().copied().collect();
    let mut free = (0..TABLES_MAX).map(Region).filter(|region| !in_use.contains(region));
    let mut take = || {
        let max = TABLES_MAX as usize;
        free.next().ok_or(Error::Bounds { what: "tables", is: max + 1, max })
    };
    let mut plan = Plan::default();
    let mut guests = Vec::new();
    for (region, claims) in claims(current, wanted) {
        let keeper = pools.get(&region).filter(|pool| claims.contains_key(*pool));
        let keeper = keeper.or_else(|| claims.keys().next()).cloned();
        for (pool, keys) in claims {
            if Some(&pool) == keeper.as_ref() {
                plan.settle(region, pool, keys);
            } else {
                guests.push((region, pool, keys));
            }
        }
    }
    for (key, pool) in wanted.iter().filter(|(key, _)| !current.contains_key(key)) {
        let home = plan.pools.iter().find(|(_, other)| *other == pool).map(|(region, _)| *region);
        let region = match home {
            Some(region) => region,
            None => {
                let region = take()?;
                plan.fresh.insert(region);
                region
            }
        };
        plan.settle(region, pool.clone(), vec![*key]);
    }
    for (from, pool, keys) in guests {
        let to = take()?;
        plan.copies.push((from, to));
        plan.settle(to, pool, keys);
    }
    Ok(plan)
}

impl Plan {
    fn settle(&mut self, region: Region, pool: Arc<str>, keys: Vec<VipKey>) {
        self.of_key.extend(keys.into_iter().map(|key| (key, region)));
        self.pools.insert(region, pool);
    }
}

type Claims = BTreeMap<Region, BTreeMap<Arc<str>, Vec<VipKey>>>;

/// Which pools the live keys of each region want.
fn claims(current: &BTreeMap<VipKey, Region>, wanted: &BTreeMap<VipKey, Arc<str>>) -> Claims {
    let mut claims = Claims::new();
    for (key, pool) in wanted {
        if let Some(&region) = current.get(key) {
            claims.entry(region).or_default().entry(pool.clone()).or_default().push(*key);
        }
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> VipKey {
        VipKey { port: lb_abi::be::Be16::new(port), protocol: 6, ..VipKey::default() }
    }

    fn current(pairs: &[(u16, u32)]) -> BTreeMap<VipKey, Region> {
        pairs.iter().map(|&(port, region)| (key(port), Region(region))).collect()
    }

    fn wanted(pairs: &[(u16, &str)]) -> BTreeMap<VipKey, Arc<str>> {
        pairs.iter().map(|&(port, pool)| (key(port), pool.into())).collect()
    }

    fn tags(pairs: &[(u32, &str)]) -> BTreeMap<Region, Arc<str>> {
        pairs.iter().map(|&(region, pool)| (Region(region), pool.into())).collect()
    }

    #[test]
    fn keys_of_a_pool_share_a_fresh_region() {
        let plan = plan(&current(&[]), &tags(&[]), &wanted(&[(1, "a"), (2, "a"), (3, "b")])).unwrap();
        assert_eq!(plan.of_key, current(&[(1, 0), (2, 0), (3, 1)]));
        assert_eq!(plan.fresh, [Region(0), Region(1)].into());
        assert!(plan.copies.is_empty());
    }

    #[test]
    fn adopted_regions_get_the_pool_of_their_keys() {
        let plan = plan(&current(&[(1, 5), (2, 5)]), &tags(&[]), &wanted(&[(1, "a"), (2, "a")])).unwrap();
        assert_eq!(plan.pools, tags(&[(5, "a")]));
        assert!(plan.fresh.is_empty() && plan.copies.is_empty());
    }

    #[test]
    fn a_vip_that_leaves_its_pool_takes_a_copy_along() {
        let plan = plan(
            &current(&[(1, 0), (2, 0), (3, 1)]),
            &tags(&[(0, "a"), (1, "b")]),
            &wanted(&[(1, "b"), (2, "a"), (3, "b")]),
        )
        .unwrap();
        assert_eq!(plan.of_key, current(&[(1, 2), (2, 0), (3, 1)]));
        assert_eq!(plan.copies, [(Region(0), Region(2))]);
        assert_eq!(plan.pools, tags(&[(0, "a"), (1, "b"), (2, "b")]));
    }

    #[test]
    fn when_all_keys_change_pool_the_region_does() {
        let plan =
            plan(&current(&[(1, 0), (2, 0)]), &tags(&[(0, "a")]), &wanted(&[(1, "b"), (2, "b")])).unwrap();
        assert_eq!(plan.pools, tags(&[(0, "b")]));
        assert!(plan.fresh.is_empty() && plan.copies.is_empty());
    }

    #[test]
    fn a_leaving_region_is_not_given_out_at_once() {
        let plan = plan(&current(&[(1, 0)]), &tags(&[(0, "a")]), &wanted(&[(2, "b")])).unwrap();
        assert_eq!(plan.of_key, current(&[(2, 1)]));
    }

    #[test]
    fn too_many_tables_are_refused() {
        let pools: BTreeMap<VipKey, Arc<str>> =
            (1..=TABLES_MAX as u16 + 1).map(|port| (key(port), port.to_string().into())).collect();
        assert!(matches!(plan(&current(&[]), &tags(&[]), &pools), Err(Error::Bounds { .. })));
    }
}
