//! Prefixes of clients with a pool of their own, in the order of a sync.

use std::{collections::BTreeMap, sync::Arc};

use lb_abi::vip::{VipEntry, VipKey};

use super::{
    super::{
        anchor::{ANCHOR, anchor},
        desired::Desired,
        error::Result,
        sources::{Prefixes, Sources},
        store::Store,
    },
    Sync,
};

impl Sync {
    /// Before VIPs are written, so that one that looks at prefixes finds them; tables are there already.
    pub(in super::super) fn put_sources(
        &mut self,
        store: &mut impl Store,
        desired: &Desired,
        indexes: &BTreeMap<u32, Arc<str>>,
        wanted: &BTreeMap<VipKey, VipEntry>,
    ) -> Result<()> {
        for (key, entry) in wanted.iter().filter(|(key, _)| key.protocol == ANCHOR) {
            self.put_vip(store, *key, *entry)?;
        }
        for (&index, name) in indexes {
            let Some(sources) = desired.sources.get(name) else { continue };
            let table = |pool| wanted.get(&anchor(pool)).map(|entry| entry.table);
            let prefixes = sources.iter().filter_map(|(net, pool)| Some((*net, table(pool)?)));
            self.sources.put(store, index, Prefixes::new(prefixes))?;
        }
        Ok(())
    }

    /// After VIPs are written and removed: what none of them looks at.
    pub(in super::super) fn remove_sources(&mut self, desired: &Desired) {
        let names = &self.vip_names;
        let looks = |index: &u32| names.get(index).is_some_and(|name| desired.sources.contains_key(name));
        let Sources { read, prefixes, retired, .. } = &mut self.sources;
        read.retain(|index, set| {
            let stays = looks(index);
            if !stays {
                retired.insert(*set);
            }
            stays
        });
        prefixes.retain(|index, _| looks(index));
    }
}
