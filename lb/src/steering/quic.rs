//! QUIC connection ids: whom they name, and which keys prove it.
//!
//! Server ids go in before a VIP reads them, keys too; a VIP that stops reading them does so before its keys go.
//! A server id that leaves the config goes on naming its backend as long as that is there: its connections end
//! with it. Only then may another backend have it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lb_abi::{
    backend::{BackendEntry, PRESENT},
    hash::sip13,
    quic::{POOLS_MAX, QuicEntry, Server},
    vip::{RANGE, VipKey},
};

use super::{
    error::{Error, Result},
    store::Store,
    sync::Sync,
};
use crate::model::BackendId;

/// What connection ids should say, of one config.
#[derive(Clone, Debug, Default)]
pub struct DesiredQuic {
    /// VIPs whose datagrams are led by id.
    pub vips: BTreeMap<Arc<str>, DesiredQuicVip>,
    /// Who has a server id.
    pub servers: BTreeMap<u16, DesiredServer>,
}

/// IP protocol number of UDP.
const UDP: u8 = 17;

impl DesiredQuic {
    /// Whether datagrams to a VIP's key are led by connection id. A fragment has none.
    pub(super) fn reads_ids(&self, key: &VipKey, vip: &str) -> bool {
        key.protocol & !RANGE == UDP && self.vips.contains_key(vip)
    }
}

/// One VIP's ids.
#[derive(Clone, Debug, Default)]
pub struct DesiredQuicVip {
    /// SipHash keys by config id, 0 to 6.
    pub keys: BTreeMap<u8, [u64; 2]>,
    /// Names of the pools whose servers they may name.
    pub pools: BTreeSet<Arc<str>>,
}

/// One server id's owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredServer {
    /// The backend.
    pub backend: BackendId,
    /// Name of its pool.
    pub pool: Arc<str>,
}

/// What the two maps hold.
#[derive(Debug, Default)]
pub(super) struct Quic {
    servers: BTreeMap<u16, Server>,
    vips: BTreeMap<u32, QuicEntry>,
}

impl Quic {
    pub(super) fn adopt(store: &impl Store) -> Result<Self> {
        // Entries of VIPs are written anew by the first sync.
        Ok(Self { servers: store.quic_servers()?, vips: BTreeMap::new() })
    }
}

impl Sync {
    /// Whether ids may say what is desired, given who is there now.
    pub(super) fn check_quic(&self, desired: &DesiredQuic) -> Result<()> {
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
    pub(super) fn put_quic(
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
    pub(super) fn remove_quic(&mut self, store: &mut impl Store, desired: &DesiredQuic) -> Result<()> {
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

fn entry(vip: &DesiredQuicVip) -> QuicEntry {
    let mut entry = QuicEntry::default();
    for (&config, key) in &vip.keys {
        if let Some(place) = entry.keys.get_mut(usize::from(config)) {
            *place = *key;
            entry.configs |= 1 << config;
        }
    }
    for (place, pool) in entry.pools.iter_mut().zip(&vip.pools) {
        *place = pool_tag(pool);
    }
    entry
}

/// A pool as the maps know it; no secret, and the same at every start. Never zero.
fn pool_tag(name: &str) -> u32 {
    let words = name.as_bytes().chunks(8).fold([name.len() as u64, 0], |[a, b], chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let word = u64::from_le_bytes(word);
        [sip13([0; 2], [a, b, word]), b + 1]
    });
    (words[0] as u32).max(1)
}
