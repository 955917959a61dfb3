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
    hash::sip13,
    quic::{QuicEntry, Server},
    vip::{RANGE, VipKey},
};

use super::{error::Result, store::Store};
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
    pub(super) servers: BTreeMap<u16, Server>,
    pub(super) vips: BTreeMap<u32, QuicEntry>,
}

impl Quic {
    pub(super) fn adopt(store: &impl Store) -> Result<Self> {
        // Entries of VIPs are written anew by the first sync.
        Ok(Self { servers: store.quic_servers()?, vips: BTreeMap::new() })
    }
}

pub(super) fn entry(vip: &DesiredQuicVip) -> QuicEntry {
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
pub(super) fn pool_tag(name: &str) -> u32 {
    let words = name.as_bytes().chunks(8).fold([name.len() as u64, 0], |[a, b], chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let word = u64::from_le_bytes(word);
        [sip13([0; 2], [a, b, word]), b + 1]
    });
    (words[0] as u32).max(1)
}
