//! What the packet path should do, as control says it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use lb_abi::{
    be::Be16,
    bounds::{BACKENDS_MAX, DENY_MAX, VIP_KEYS_MAX, VIPS_MAX},
    hash::sip13,
    slot::TICK_SHIFT,
    vip::VipKey,
};

use super::error::{Error, Result};
use crate::{
    balance::maglev::{Member, Table},
    config::{Forward, Gateway, Transport, VipPort},
    model::{BackendId, Generation},
};

/// Everything that the maps should hold, of one config.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// Which config.
    pub generation: Generation,
    /// L4 services.
    pub vips: Vec<DesiredVip>,
    /// Pools that VIPs name; others do no harm and get no table.
    pub pools: Vec<DesiredPool>,
    /// Denied sources.
    pub deny: Vec<IpNet>,
    /// Outer sources of IPIP and GUE in IPv4; `None`: backends with IPv4 addresses cannot be reached by a tunnel. By IPIP
    /// each flow has its own, as far as 16 bits go; by GUE all have the first.
    pub outer_v4: Option<Ipv4Net>,
    /// The same for IPv6.
    pub outer_v6: Option<Ipv6Net>,
    /// By interface name: where tunnels go for which the routing table has no answer.
    pub gateways: BTreeMap<Arc<str>, Gateway>,
}

/// One `[vip.NAME]`.
#[derive(Clone, Debug)]
pub struct DesiredVip {
    /// Name in the config; its counters hang on it.
    pub name: Arc<str>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Ports with their protocols.
    pub ports: Vec<VipPort>,
    /// How packets leave.
    pub forward: Forward,
    /// Name of one of [`Desired::pools`].
    pub pool: Arc<str>,
    /// With [`Forward::Nat`]: what sources are translated to, of the family of the addresses.
    pub nat_source: Vec<IpAddr>,
    /// Never remember flows.
    pub flows_none: bool,
    /// How long a flow without packets is remembered.
    pub flow_idle: Duration,
    /// Keys the flow hash; must not change while the VIP lives. See [`derive_key`].
    pub hash_key: [u64; 2],
}

/// One `[pool.NAME]` behind a VIP.
#[derive(Clone, Debug)]
pub struct DesiredPool {
    /// Name in the config.
    pub name: Arc<str>,
    /// Keys the table. See [`derive_key`].
    pub table_key: [u64; 2],
    /// Backends.
    pub backends: Vec<DesiredBackend>,
    /// The table to build from where this process has none yet: from the state directory.
    pub lineage: Option<Arc<Table>>,
}

/// One backend of a pool behind a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesiredBackend {
    /// Stable over generations and restarts; not 0.
    pub id: BackendId,
    /// Where packets go.
    pub address: IpAddr,
    /// Port that translated packets go to; `None`: the VIP's.
    pub port: Option<u16>,
    /// Share of the slots.
    pub weight: u16,
}

impl DesiredPool {
    /// The backends as the table takes them: identified by address, so that every node builds the same.
    pub(super) fn members(&self) -> Vec<Member> {
        self.backends
            .iter()
            .map(|backend| Member {
                id: backend.id,
                identity: identity(backend.address, backend.port),
                weight: backend.weight,
            })
            .collect()
    }
}

/// A backend's identity in Maglev tables; no secret, the table's key is.
fn identity(address: IpAddr, port: Option<u16>) -> u64 {
    let bits = u128::from_be_bytes(mapped(address));
    let (low, high) = (bits as u64, (bits >> 64) as u64);
    match port {
        None => sip13([0, 0], [low, high]),
        Some(port) => sip13([0, 0], [low, high, u64::from(port)]),
    }
}

/// A key of its own for every purpose, from the one secret of the config. Equal on every node that has it.
pub fn derive_key(secret: [u64; 2], purpose: &str, name: &str) -> [u64; 2] {
    let mut state = [secret[0], secret[1]];
    for part in [purpose, name] {
        for chunk in part.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            state = absorb(secret, state, u64::from_le_bytes(word));
        }
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        state = absorb(secret, state, part.len() as u64);
    }
    state
}

fn absorb(secret: [u64; 2], state: [u64; 2], word: u64) -> [u64; 2] {
    [sip13(secret, [state[0], state[1], word, 0]), sip13(secret, [state[0], state[1], word, 1])]
}

/// An address as the maps have it: IPv4 as `::ffff:a.b.c.d`.
pub(super) fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Ticks of the packet path's clock, from the time since boot (CLOCK_MONOTONIC, coarse or not).
pub const fn ticks(since_boot: Duration) -> u32 {
    (since_boot.as_nanos() >> TICK_SHIFT) as u32
}

/// How long that many ticks last; the inverse of [`ticks`], rounded down to whole ticks.
pub const fn duration(ticks: u32) -> Duration {
    Duration::from_nanos((ticks as u64) << TICK_SHIFT)
}

/// Key of a VIP's port.
pub(super) fn vip_key(address: IpAddr, port: VipPort) -> VipKey {
    let protocol = match port.transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
    };
    VipKey { address: mapped(address), port: Be16::new(port.port), protocol, pad: 0 }
}

/// What stands in `BACKENDS` of a backend: its address, and its port or 0.
pub(super) fn ends(backend: &DesiredBackend) -> (IpAddr, Be16) {
    (backend.address, Be16::new(backend.port.unwrap_or(0)))
}

/// Key under which echo requests for an address are found.
pub(super) fn echo_key(address: IpAddr) -> VipKey {
    let protocol = if address.is_ipv4() { 1 } else { 58 };
    VipKey { address: mapped(address), port: Be16::new(0), protocol, pad: 0 }
}

/// A desired state that holds: bounds kept, references resolved, nothing named twice.
pub(super) struct Checked<'a> {
    /// Which VIP a key belongs to.
    pub(super) keys: BTreeMap<VipKey, &'a DesiredVip>,
    /// Keys that only answer echo, each with a VIP of that address.
    pub(super) echo: BTreeMap<VipKey, &'a DesiredVip>,
    /// Keys of addresses that sources are translated to.
    pub(super) sources: BTreeMap<VipKey, &'a DesiredVip>,
    /// Pools that a VIP names.
    pub(super) pools: BTreeMap<&'a str, &'a DesiredPool>,
    /// Backends of those pools.
    pub(super) backends: BTreeMap<BackendId, (IpAddr, Be16)>,
}

impl Desired {
    /// Everything that can be wrong with a desired state is found here, before anything is written.
    pub(super) fn check(&self) -> Result<Checked<'_>> {
        let by_name: BTreeMap<&str, &DesiredPool> =
            self.pools.iter().map(|pool| (&*pool.name, pool)).collect();
        let mut checked = Checked {
            keys: BTreeMap::new(),
            echo: BTreeMap::new(),
            sources: BTreeMap::new(),
            pools: BTreeMap::new(),
            backends: BTreeMap::new(),
        };
        for vip in &self.vips {
            let pool = by_name.get(&*vip.pool).ok_or_else(|| Error::PoolUnknown {
                vip: vip.name.to_string(),
                pool: vip.pool.to_string(),
            })?;
            checked.pools.insert(&vip.pool, pool);
            checked.add_keys(vip)?;
        }
        let pools: Vec<&DesiredPool> = checked.pools.values().copied().collect();
        pools.into_iter().try_for_each(|pool| checked.add_backends(pool))?;
        bound("vips", self.vips.len(), VIPS_MAX)?;
        let keys = checked.keys.len() + checked.echo.len() + checked.sources.len();
        bound("vip addresses and ports", keys, VIP_KEYS_MAX)?;
        let v4: BTreeSet<&IpNet> = self.deny.iter().filter(|net| net.addr().is_ipv4()).collect();
        bound("denied IPv4 prefixes", v4.len(), DENY_MAX)?;
        bound("denied IPv6 prefixes", self.deny.len() - v4.len(), DENY_MAX)?;
        Ok(checked)
    }
}

impl<'a> Checked<'a> {
    fn add_keys(&mut self, vip: &'a DesiredVip) -> Result<()> {
        self.sources.extend(vip.nat_source.iter().map(|&source| (echo_key(source), vip)));
        for &address in &vip.addresses {
            self.echo.entry(echo_key(address)).or_insert(vip);
            for &port in &vip.ports {
                if let Some(other) = self.keys.insert(vip_key(address, port), vip) {
                    return Err(Error::VipTaken {
                        vip: vip.name.to_string(),
                        key: format!("{address} port {} {:?}", port.port, port.transport).to_lowercase(),
                        other: other.name.to_string(),
                    });
                }
            }
        }
        Ok(())
    }

    fn add_backends(&mut self, pool: &DesiredPool) -> Result<()> {
        for backend in &pool.backends {
            let id = backend.id;
            if id.0 == 0 || u32::from(id.0) >= BACKENDS_MAX {
                return Err(Error::Bounds {
                    what: "as a backend id",
                    is: id.index(),
                    max: BACKENDS_MAX as usize - 1,
                });
            }
            let ends = ends(backend);
            let one = *self.backends.entry(id).or_insert(ends);
            if one != ends {
                return Err(Error::BackendTwice { id, one: one.0, two: backend.address });
            }
        }
        Ok(())
    }
}

fn bound(what: &'static str, is: usize, max: u32) -> Result<()> {
    if is <= max as usize { Ok(()) } else { Err(Error::Bounds { what, is, max: max as usize }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_secret_purpose_and_name() {
        let secret = [1, 2];
        let key = derive_key(secret, "table", "web");
        assert_eq!(key, derive_key(secret, "table", "web"));
        assert_ne!(key, derive_key([1, 3], "table", "web"));
        assert_ne!(key, derive_key(secret, "flow", "web"));
        assert_ne!(key, derive_key(secret, "tablew", "eb"));
        assert_ne!(derive_key(secret, "a", ""), derive_key(secret, "", "a"));
    }

    #[test]
    fn ticks_are_the_clocks_high_bits() {
        assert_eq!(ticks(Duration::from_nanos((1 << TICK_SHIFT) - 1)), 0);
        assert_eq!(ticks(Duration::from_nanos(3 << TICK_SHIFT)), 3);
        assert_eq!(ticks(duration(12_345)), 12_345);
    }

    #[test]
    fn mistakes_are_found_before_anything_is_written() {
        let port = VipPort { port: 53, transport: Transport::Udp };
        let vip = |name: &str| DesiredVip {
            name: name.into(),
            addresses: vec![[192, 0, 2, 1].into()],
            ports: vec![port],
            forward: Forward::Ipip,
            pool: "dns".into(),
            nat_source: vec![],
            flows_none: false,
            flow_idle: Duration::from_secs(1),
            hash_key: [0, 0],
        };
        let backend = |id, last| DesiredBackend {
            id: BackendId(id),
            address: [10, 0, 0, last].into(),
            port: None,
            weight: 1,
        };
        let pool = |backends| DesiredPool { name: "dns".into(), table_key: [0, 0], backends, lineage: None };
        let with = |vips, pools| Desired { vips, pools, ..Desired::default() };
        let error = |desired: Desired| desired.check().err().unwrap().to_string();
        assert!(error(with(vec![vip("a")], vec![])).contains("pool dns"));
        assert!(error(with(vec![vip("a"), vip("b")], vec![pool(vec![])])).contains("port 53 udp is already"));
        assert!(error(with(vec![vip("a")], vec![pool(vec![backend(0, 1)])])).contains("backend id"));
        assert!(
            error(with(vec![vip("a")], vec![pool(vec![backend(1, 1), backend(1, 2)])])).contains("10.0.0.2")
        );
        assert!(with(vec![vip("a")], vec![pool(vec![backend(1, 1)])]).check().is_ok());
    }
}
