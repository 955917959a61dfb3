//! Which number a backend goes by.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use lb_abi::bounds::BACKENDS_MAX;

use super::{Backend, Config};
use crate::model::BackendId;

/// The stable map (pool, address, port) -> [`BackendId`], shared by snapshots, the health table and XDP.
///
/// Ids start at 1 and are never reused within its life: a slot, a flow record or a worker's older snapshot may
/// still name a backend that is gone from the config. One that comes back gets the id it had.
#[derive(Clone, Debug, Default)]
pub struct BackendIds {
    pools: BTreeMap<Arc<str>, PoolIds>,
    given: u16,
}

/// Ids of one pool, by address and port.
type PoolIds = HashMap<(IpAddr, Option<u16>), BackendId>;

/// Every id that XDP's map has room for was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no backend id is left: {} were given out since start, and none is ever reused", BACKENDS_MAX - 1)]
pub struct BackendIdsExhausted;

impl BackendIds {
    /// Nothing given out yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The id of a backend, if it ever had one. The weight does not matter.
    pub fn id(&self, pool: &str, backend: &Backend) -> Option<BackendId> {
        self.pools.get(pool)?.get(&(backend.ip, backend.port)).copied()
    }

    /// Gives an id to every backend of `config` that has none, in the order of pool names and of their lists.
    ///
    /// # Errors
    /// There are too few ids left; nothing was given then.
    pub fn assign(&mut self, config: &Config) -> Result<(), BackendIdsExhausted> {
        let backends = || {
            config
                .pools
                .iter()
                .flat_map(|(name, pool)| pool.backends.iter().map(move |backend| (name, backend)))
        };
        let new = backends().filter(|(pool, backend)| self.id(pool, backend).is_none()).count();
        if usize::from(self.given) + new >= BACKENDS_MAX as usize {
            return Err(BackendIdsExhausted);
        }
        for (pool, backend) in backends() {
            let ids = self.pools.entry(pool.clone()).or_default();
            ids.entry((backend.ip, backend.port)).or_insert_with(|| {
                self.given += 1;
                BackendId(self.given)
            });
        }
        Ok(())
    }

    /// How many ids were given out; the highest one is the same number.
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
        let ip = [127, 0, 0, 1].into();
        ids.id("demo", &Backend { ip, port: Some(port), weight: 9 })
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
    }
}
