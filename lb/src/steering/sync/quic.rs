//! Server ids and keys, in the order of a sync.

use std::{collections::BTreeMap, sync::Arc};

use lb_abi::{
    backend::{BackendEntry, PRESENT},
    quic::{POOLS_MAX, QuicEntry, Server},
};

use super::{
    super::{
        error::{Error, Result},
        quic::{DesiredQuic, DesiredServer, entry, pool_tag},
        store::Store,
    },
    Sync,
};
use crate::model::BackendId;

impl Sync {
    /// Whether ids may say what is desired, given who is there now.
    pub(in super::super) fn check_quic(&self, desired: &DesiredQuic) -> Result<()> {
        if let Some(most) =
            desired.vips.values().map(|vip| vip.pools.len()).max().filter(|most| *most > POOLS_MAX)
        {
            let what = "pools behind one vip with connection ids";
            return Err(Error::Bounds { what, is: most, max: POOLS_MAX });
        }
        for (&id, server) in &desired.servers {
            let Some(old) = self.quic.servers.get(&id) else { continue };
            let by = BackendId(old.backend);
            if by != server.backend && self.still_named(old).is_some() && !self.down.contains(&by) {
                return Err(Error::ServerIdTaken { id, by });
            }
        }
        Ok(())
    }

    /// The backend that an entry names, where it is still there.
    fn still_named(&self, server: &Server) -> Option<&BackendEntry> {
        self.backends
            .get(&BackendId(server.backend))
            .filter(|entry| entry.flags & PRESENT != 0 && entry.generation as u16 == server.generation)
    }

    /// Before VIPs are written: `indexes` names them. Backends are written already.
    pub(in super::super) fn put_quic(
        &mut self,
        store: &mut impl Store,
        desired: &DesiredQuic,
        indexes: &BTreeMap<u32, Arc<str>>,
    ) -> Result<()> {
        for (&id, DesiredServer { backend, pool }) in &desired.servers {
            let generation = self.backends.get(backend).map_or(0, |entry| entry.generation as u16);
            let server = Server { backend: backend.0, generation, pool: pool_tag(pool) };
            if self.quic.servers.get(&id) != Some(&server) {
                store.put_quic_server(id, server)?;
                self.quic.servers.insert(id, server);
            }
        }
        for (&index, name) in indexes {
            let Some(vip) = desired.vips.get(name) else { continue };
            let entry = entry(vip);
            if self.quic.vips.get(&index) != Some(&entry) {
                store.put_quic_vip(index, &entry)?;
                self.quic.vips.insert(index, entry);
            }
        }
        Ok(())
    }

    /// After VIPs are written and removed: keys that nobody reads, and ids of backends that are gone.
    pub(in super::super) fn remove_quic(
        &mut self,
        store: &mut impl Store,
        desired: &DesiredQuic,
    ) -> Result<()> {
        let names = &self.vip_names;
        let reads = |index: &u32| names.get(index).is_some_and(|name| desired.vips.contains_key(name));
        let unread: Vec<u32> = self.quic.vips.keys().copied().filter(|index| !reads(index)).collect();
        for index in unread {
            store.put_quic_vip(index, &QuicEntry::default())?;
            self.quic.vips.remove(&index);
        }
        let gone =
            self.quic.servers.iter().filter(|(id, server)| {
                !desired.servers.contains_key(id) && self.still_named(server).is_none()
            });
        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            store.put_quic_server(id, Server::default())?;
            self.quic.servers.remove(&id);
        }
        Ok(())
    }
}
