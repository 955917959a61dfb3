//! Which number a backend goes by.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use lb_abi::bounds::BACKENDS_MAX;

use super::{Backend, BackendPlace, Config};
use crate::model::BackendId;

/// The stable map (pool, address, port) -> [`BackendId`], shared by snapshots, the health table and XDP.
///
/// Ids start at 1 and are not reused within its life, save those that are [released](Self::release): a slot, a flow record or a worker's older snapshot may
/// still name a backend that is gone from the config. One that comes back gets the id it had. Across a restart
/// the ids that maps and kept tables still name are [adopted](Self::adopt): their address gets them again, and
/// nobody else does.
#[derive(Clone, Debug, Default)]
pub struct BackendIds {
    pools: BTreeMap<Arc<str>, PoolIds>,
    /// Ids of an earlier run, with the address they stand for, that no backend of this one has taken yet.
    former: BTreeMap<BackendId, IpAddr>,
    /// All ids of an earlier run: never fresh, taken or not.
    reserved: BTreeSet<BackendId>,
    /// Of those, the ones that a pool's kept table names.
    former_of: BTreeMap<Arc<str>, BTreeSet<BackendId>>,
    /// The last id that was given out fresh.
    last: u16,
    /// How many were given out, adopted ones included.
    given: u16,
    /// Those that may be given out again, once there are no fresh ones: the first has waited longest.
    free: VecDeque<BackendId>,
}

/// Ids of one pool.
type PoolIds = HashMap<BackendPlace, BackendId>;

/// Every id that XDP's map has room for was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no backend id is left: {} were given out since start, and none of them is free again", BACKENDS_MAX - 1)]
pub struct BackendIdsExhausted;

impl BackendIds {
    /// Nothing given out yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The id of a backend, if it ever had one. The weight does not matter.
    pub fn id(&self, pool: &str, backend: &Backend) -> Option<BackendId> {
        self.pools.get(pool)?.get(&backend.place).copied()
    }

    /// Takes over what an earlier run called its backends; to be called before the first [`Self::assign`].
    ///
    /// `former` is what the packet path still knows. `of_pool` is what a pool's kept table names, which tells two
    /// pools with the same address apart; where it does not, the lowest id of that address is taken: packets go
    /// to the same place by either.
    pub fn adopt(
        &mut self,
        former: impl IntoIterator<Item = (BackendId, IpAddr)>,
        of_pool: impl IntoIterator<Item = (Arc<str>, BTreeSet<BackendId>)>,
    ) {
        self.former.extend(former);
        self.reserved.extend(self.former.keys());
        self.former_of.extend(of_pool);
    }

    /// Gives an id to every backend of `config` that has none, in the order of pool names and of their lists.
    ///
    /// # Errors
    /// There are too few ids left; nothing was given then.
    pub fn assign(&mut self, config: &Config) -> Result<(), BackendIdsExhausted> {
        let mut next = self.clone();
        // Kept tables first: an id that one names must not go to another pool with the same address.
        next.assign_by(config, |ids, pool, backend| Ok(backend.ip().and_then(|ip| ids.kept(pool, ip))))?;
        // Only packets outlive a process: what no VIP uses needs no id of an earlier run.
        next.assign_by(config, |ids, pool, backend| {
            let is_behind_vip = config.vips.values().any(|vip| vip.pools().any(|name| &**name == pool));
            Ok(backend.ip().filter(|_| is_behind_vip).and_then(|ip| ids.former(ip)))
        })?;
        next.assign_by(config, |ids, _, _| ids.fresh().map(Some))?;
        *self = next;
        Ok(())
    }

    /// Gives every backend that has none the id that `choose` finds.
    fn assign_by(
        &mut self,
        config: &Config,
        choose: impl Fn(&mut Self, &str, &Backend) -> Result<Option<BackendId>, BackendIdsExhausted>,
    ) -> Result<(), BackendIdsExhausted> {
        for (name, pool) in &config.pools {
            for backend in &pool.backends {
                if self.id(name, backend).is_some() {
                    continue;
                }
                let Some(id) = choose(self, name, backend)? else { continue };
                self.former.remove(&id);
                self.given += 1;
                self.pools.entry(name.clone()).or_default().insert(backend.place.clone(), id);
            }
        }
        Ok(())
    }

    /// The former id of an address that the pool's own table names.
    fn kept(&self, pool: &str, address: IpAddr) -> Option<BackendId> {
        self.former_of.get(pool)?.iter().find(|id| self.former.get(id) == Some(&address)).copied()
    }

    /// The lowest former id of an address.
    fn former(&self, address: IpAddr) -> Option<BackendId> {
        self.former.iter().find(|(_, former)| **former == address).map(|(id, _)| *id)
    }

    /// An id that neither this run nor anything left of an earlier one names.
    fn fresh(&mut self) -> Result<BackendId, BackendIdsExhausted> {
        loop {
            if u32::from(self.last) + 1 >= BACKENDS_MAX {
                return self.free.pop_front().ok_or(BackendIdsExhausted);
            }
            self.last += 1;
            let id = BackendId(self.last);
            if !self.reserved.contains(&id) {
                return Ok(id);
            }
        }
    }

    /// Forgets who had these ids, of pools that no VIP uses: names bring addresses without end. The caller knows that
    /// nothing names them any more.
    pub fn release(&mut self, ids: &BTreeSet<BackendId>) {
        for pool in self.pools.values_mut() {
            pool.retain(|_, id| !ids.contains(id));
        }
        self.free.extend(ids.iter().filter(|id| !self.reserved.contains(id)));
    }

    /// How many ids were given out.
    pub fn given(&self) -> u16 {
        self.given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(ports: std::ops::Range<u16>) -> Config {
        let backends: Vec<_> = ports.map(|port| ([127, 0, 0, 1], port).into()).collect();
        Config::quickstart(&backends, "/run/lb/admin.sock".into())
    }

    fn id(ids: &BackendIds, port: u16) -> Option<BackendId> {
        ids.id("demo", &Backend { weight: 9, ..Backend::at([127, 0, 0, 1].into(), Some(port)) })
    }

    #[test]
    fn ids_are_stable_and_never_reused() {
        let mut ids = BackendIds::new();
        ids.assign(&config(1..3)).unwrap();
        assert_eq!((id(&ids, 1), id(&ids, 2)), (Some(BackendId(1)), Some(BackendId(2))));
        ids.assign(&config(2..4)).unwrap();
        assert_eq!((id(&ids, 2), id(&ids, 3)), (Some(BackendId(2)), Some(BackendId(3))));
        ids.assign(&config(1..2)).unwrap();
        assert_eq!((id(&ids, 1), ids.given()), (Some(BackendId(1)), 3));
        assert_eq!(ids.id("other", &config(1..2).pools["demo"].backends[0]), None);
    }

    #[test]
    fn ends_before_the_map_does() {
        let mut ids = BackendIds::new();
        ids.assign(&config(1..4096)).unwrap();
        assert_eq!(ids.given(), 4095);
        assert_eq!(ids.assign(&config(4095..4097)), Err(BackendIdsExhausted));
        assert_eq!((ids.given(), id(&ids, 4096)), (4095, None));
        ids.assign(&config(7..9)).unwrap();
        ids.release(&[BackendId(3), BackendId(9)].into());
        ids.assign(&config(4095..4098)).unwrap();
        assert_eq!((id(&ids, 4096), id(&ids, 4097)), (Some(BackendId(3)), Some(BackendId(9))));
        assert_eq!((id(&ids, 3), id(&ids, 4)), (None, Some(BackendId(4))));
        assert_eq!(ids.assign(&config(3..4)), Err(BackendIdsExhausted), "it comes back too late");
    }

    /// Pools of addresses, all but `l7` behind a VIP.
    fn behind_vips(pools: &[(&str, &[u8])]) -> Config {
        let mut text = "version = 1\nxdp.interfaces = [\"lo\"]\n[listener.l]\nbind = [\"[::1]:1\"]\n\
                        protocol = \"http\"\n"
            .to_owned();
        for (at, (name, backends)) in pools.iter().enumerate() {
            let backends: Vec<_> = backends.iter().map(|last| format!("10.0.0.{last}:80")).collect();
            text += &format!("[pool.{name}]\nbackends = {backends:?}\n");
            text += &match *name {
                "l7" => "[route.r]\nlistener = \"l\"\npool = \"l7\"\n".to_owned(),
                name => format!(
                    "[vip.{name}]\naddress = [\"192.0.2.{at}\"]\nports = [\"80/tcp\"]\nforward = \"ipip\"\n\
                     pool = \"{name}\"\n"
                ),
            };
        }
        crate::config::parse("f", &text).unwrap().config
    }

    fn ids_of(ids: &BackendIds, config: &Config, pool: &str) -> Vec<u16> {
        config.pools[pool].backends.iter().map(|backend| ids.id(pool, backend).unwrap().0).collect()
    }

    fn former(ids: &[(u16, u8)]) -> Vec<(BackendId, IpAddr)> {
        ids.iter().map(|(id, last)| (BackendId(*id), [10, 0, 0, *last].into())).collect()
    }

    /// One removed in front of the others would rename them all, were ids dealt out anew.
    #[test]
    fn a_restart_keeps_the_ids_of_addresses() {
        let mut ids = BackendIds::new();
        ids.adopt(former(&[(1, 11), (2, 12), (3, 13)]), []);
        let config = behind_vips(&[("l7", &[12]), ("v", &[14, 13, 12])]);
        ids.assign(&config).unwrap();
        assert_eq!(ids_of(&ids, &config, "v"), [5, 3, 2], "1 may still stand in a slot");
        assert_eq!(ids_of(&ids, &config, "l7"), [4], "a pool that no vip uses takes no packet's id");
    }

    #[test]
    fn pools_with_one_address_keep_their_own_id_of_it() {
        let config = behind_vips(&[("a", &[11]), ("b", &[11]), ("c", &[11])]);
        let table = |pool: &str, id| (Arc::from(pool), BTreeSet::from([BackendId(id)]));
        let mut ids = BackendIds::new();
        ids.adopt(former(&[(1, 11), (2, 11)]), [table("b", 1), table("gone", 2)]);
        ids.assign(&config).unwrap();
        let all = ["a", "b", "c"].map(|pool| ids_of(&ids, &config, pool)[0]);
        assert_eq!(all, [2, 1, 3]);
    }

    #[test]
    fn a_kept_table_does_not_bring_back_what_the_packet_path_forgot() {
        let config = behind_vips(&[("v", &[11, 12])]);
        let mut ids = BackendIds::new();
        ids.adopt(former(&[(1, 12)]), [(Arc::from("v"), BTreeSet::from([BackendId(1), BackendId(2)]))]);
        ids.assign(&config).unwrap();
        assert_eq!(ids_of(&ids, &config, "v"), [2, 1]);
    }
}
