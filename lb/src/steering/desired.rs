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
    bounds::{BACKENDS_MAX, DENY_MAX, SOURCE_PREFIXES_MAX, VIP_KEYS_MAX, VIPS_MAX},
    hash::sip13,
    lengths::LENGTHS_MAX,
    limit::Limits,
    tag::TagKeys,
    vip::{RANGE, VipKey},
};

use super::{
    anchor::anchor,
    error::{Error, Result},
    quic::DesiredQuic,
    terms::{host_bits_of, mapped},
    wide::masked,
};
use crate::{
    balance::maglev::{Member, Table},
    config::{Forward, Gateway, HashBy, Transport, VipPort},
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
    pub deny: Arc<[IpNet]>,
    /// Allowed ones: the longest prefix decides, and an allowed one before a denied one of the same length.
    pub allow: Arc<[IpNet]>,
    /// Keys the fingerprints of both. See [`derive_key`].
    pub guard_key: [u64; 2],
    /// Keys what flows are found by. The maps keep the first that they are given. See [`derive_key`].
    pub tag_keys: TagKeys,
    /// Addresses of this box: packets for a backend with one of them are given to the kernel as they came.
    pub local: BTreeSet<IpAddr>,
    /// Outer sources of IPIP and GUE in IPv4; `None`: backends with IPv4 addresses cannot be reached by a tunnel. By IPIP
    /// each flow has its own, as far as 16 bits go; by GUE all have the first.
    pub outer_v4: Option<Ipv4Net>,
    /// The same for IPv6.
    pub outer_v6: Option<Ipv6Net>,
    /// By interface name: where tunnels go for which the routing table has no answer.
    pub gateways: BTreeMap<Arc<str>, Gateway>,
    /// How fast one source may open flows; `None`: as fast as it likes.
    pub limits: Option<Limits>,
    /// Pools of some clients' own, by VIP name and prefix.
    pub sources: BTreeMap<Arc<str>, BTreeMap<IpNet, Arc<str>>>,
    /// QUIC connection ids.
    pub quic: DesiredQuic,
}

/// One `[vip.NAME]`.
#[derive(Clone, Debug)]
pub struct DesiredVip {
    /// Name in the config; its counters hang on it.
    pub name: Arc<str>,
    /// Single addresses.
    pub addresses: Vec<IpAddr>,
    /// Prefixes that stand for all their addresses.
    pub prefixes: Vec<IpNet>,
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
    /// What packets are told apart by.
    pub hash: HashBy,
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

/// What IPv4 addresses begin with.
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Key of a VIP's port, range, or any port, at an address (a prefix of full length) or prefix.
pub(super) fn vip_key(net: IpNet, port: VipPort) -> VipKey {
    let protocol = vip_protocol(port.transport);
    let range = if port.is_range() { RANGE } else { 0 };
    VipKey { port: Be16::new(port.port), protocol: protocol | range, ..echo_key(net) }
}

/// What stands in `BACKENDS` of a backend: its address, and its port or 0.
pub(super) fn ends(backend: &DesiredBackend) -> (IpAddr, Be16) {
    (backend.address, Be16::new(backend.port.unwrap_or(0)))
}

/// Number of a transport.
const fn vip_protocol(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
    }
}

/// Key under which echo requests for an address or prefix are found.
pub(super) fn echo_key(net: IpNet) -> VipKey {
    let protocol = if net.addr().is_ipv4() { 1 } else { 58 };
    // At most 128.
    let host_bits = host_bits_of(&net) as u8;
    VipKey { address: mapped(net.network()), port: Be16(0), protocol, host_bits }
}

impl DesiredVip {
    /// Everything that packets may be addressed to.
    fn nets(&self) -> impl Iterator<Item = IpNet> {
        self.addresses.iter().map(|address| IpNet::from(*address)).chain(self.prefixes.iter().copied())
    }

    /// [`lb_abi::vip::VipEntry::last_port`] under one of its keys.
    pub(super) fn last_port(&self, key: &VipKey) -> u16 {
        let ports = self.ports.iter().filter(|port| port.is_range() && port.port == key.port.host());
        let mut ports = ports.filter(|port| vip_protocol(port.transport) | RANGE == key.protocol);
        ports.next().map_or(0, |port| port.last)
    }
}

/// A desired state that holds: bounds kept, references resolved, nothing named twice.
pub(super) struct Checked<'a> {
    /// Which VIP a key belongs to.
    pub(super) keys: BTreeMap<VipKey, &'a DesiredVip>,
    /// Keys without a table, each with a VIP of that address: of echo requests, and of fragments that are nobody's.
    pub(super) echo: BTreeMap<VipKey, &'a DesiredVip>,
    /// Keys of addresses that sources are translated to.
    pub(super) sources: BTreeMap<VipKey, &'a DesiredVip>,
    /// Keys that hold the tables of pools for some clients, with how long flows through them are remembered.
    pub(super) anchors: BTreeMap<VipKey, (Arc<str>, Duration)>,
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
            anchors: BTreeMap::new(),
            pools: BTreeMap::new(),
            backends: BTreeMap::new(),
        };
        for vip in &self.vips {
            checked.add_pool(vip, &vip.pool, &by_name)?;
            for pool in self.sources.get(&vip.name).into_iter().flat_map(BTreeMap::values) {
                checked.add_pool(vip, pool, &by_name)?;
                checked.add_anchor(vip, pool);
            }
            checked.add_keys(vip)?;
        }
        checked.add_fragments();
        let pools: Vec<&DesiredPool> = checked.pools.values().copied().collect();
        pools.into_iter().try_for_each(|pool| checked.add_backends(pool))?;
        bound("vips", self.vips.len(), VIPS_MAX)?;
        bound("vip addresses and ports", checked.keys_len(), VIP_KEYS_MAX)?;
        let prefixes = self.sources.values().map(BTreeMap::len).sum();
        bound("prefixes of sources", prefixes, SOURCE_PREFIXES_MAX)?;
        bound("denied and allowed prefixes", self.deny.len() + self.allow.len(), DENY_MAX)?;
        let v6 = self.deny.iter().chain(&*self.allow).filter(|net| net.addr().is_ipv6());
        let lengths: BTreeSet<u8> = v6.map(IpNet::prefix_len).collect();
        bound("lengths of denied and allowed IPv6 prefixes", lengths.len(), LENGTHS_MAX as u32)?;
        Ok(checked)
    }
}

impl<'a> Checked<'a> {
    fn keys_len(&self) -> usize {
        self.keys.len() + self.echo.len() + self.sources.len() + self.anchors.len()
    }

    fn add_pool(
        &mut self,
        vip: &DesiredVip,
        name: &'a Arc<str>,
        by_name: &BTreeMap<&str, &'a DesiredPool>,
    ) -> Result<()> {
        let pool = by_name
            .get(&**name)
            .ok_or_else(|| Error::PoolUnknown { vip: vip.name.to_string(), pool: name.to_string() })?;
        self.pools.insert(name, pool);
        Ok(())
    }

    fn add_anchor(&mut self, vip: &DesiredVip, pool: &Arc<str>) {
        let memory = if vip.flows_none { Duration::ZERO } else { vip.flow_idle };
        let (_, longest) = self.anchors.entry(anchor(pool)).or_insert((pool.clone(), memory));
        *longest = memory.max(*longest);
    }

    fn add_keys(&mut self, vip: &'a DesiredVip) -> Result<()> {
        self.sources.extend(vip.nat_source.iter().map(|&source| (echo_key(source.into()), vip)));
        for net in vip.nets() {
            self.echo.entry(echo_key(net)).or_insert(vip);
            for &port in &vip.ports {
                let key = vip_key(net, port);
                let overlapping = if port.is_range() { self.overlapping(&key, port) } else { None };
                if let Some(other) = overlapping.or_else(|| self.keys.insert(key, vip)) {
                    let address = if net.prefix_len() == net.max_prefix_len() {
                        net.addr().to_string()
                    } else {
                        net.to_string()
                    };
                    return Err(Error::VipTaken {
                        vip: vip.name.to_string(),
                        key: format!("{address} port {}", port.to_string().replace('/', " ")),
                        other: other.name.to_string(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Fragments go to a VIP that hashes by source, translates nothing (the ports that it would change are not seen),
    /// and has all the ports there are of an address and protocol. What lies
    /// in a wider prefix and is shared has an entry, too, by which its fragments are nobody's.
    fn add_fragments(&mut self) {
        let mut users: BTreeMap<VipKey, Vec<&'a DesiredVip>> = BTreeMap::new();
        for (key, vip) in &self.keys {
            let at = VipKey::fragments(key.address, key.host_bits, key.protocol & !RANGE);
            users.entry(at).or_default().push(vip);
        }
        let widths: BTreeSet<u8> = users.keys().map(|key| key.host_bits).collect();
        for (key, vips) in &users {
            let Some(first) = vips.first() else { continue };
            let bits = if key.address.starts_with(&MAPPED) { 32 } else { 128 };
            let wider = widths.range(key.host_bits..=bits).skip(1).filter_map(|&host_bits| {
                users.get(&VipKey { address: masked(key.address, host_bits), host_bits, ..*key })
            });
            let wider: Vec<_> = wider.flatten().collect();
            let mut all = wider.iter().copied().chain(vips);
            let takes = first.hash == HashBy::Source && first.forward != Forward::Nat;
            if takes && all.all(|vip| vip.name == first.name) {
                self.keys.insert(*key, first);
            } else if !wider.is_empty() {
                self.echo.insert(*key, first);
            }
        }
    }

    /// The VIP of a range that overlaps this one.
    fn overlapping(&self, key: &VipKey, port: VipPort) -> Option<&'a DesiredVip> {
        let mut same = self.keys.iter().filter(|(other, _)| VipKey { port: key.port, ..**other } == *key);
        let (_, vip) =
            same.find(|(other, vip)| other.port.host() <= port.last && port.port <= vip.last_port(other))?;
        Some(*vip)
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
    fn mistakes_are_found_before_anything_is_written() {
        let port = VipPort::one(53, Transport::Udp);
        let vip = |name: &str| DesiredVip {
            name: name.into(),
            addresses: vec![[192, 0, 2, 1].into()],
            prefixes: vec![],
            ports: vec![port],
            forward: Forward::Ipip,
            pool: "dns".into(),
            nat_source: vec![],
            flows_none: false,
            hash: HashBy::Flow,
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
        let ranges = |name: &str, port, last| DesiredVip {
            addresses: vec![],
            prefixes: vec!["192.0.2.0/24".parse().unwrap()],
            ports: vec![VipPort { port, last, transport: Transport::Udp }],
            ..vip(name)
        };
        let taken = error(with(vec![ranges("a", 10, 20), ranges("b", 20, 30)], vec![pool(vec![])]));
        assert!(taken.contains("192.0.2.0/24 port 20-30 udp is already"), "{taken}");
        let pools = vec![pool(vec![backend(1, 1)])];
        assert!(with(vec![ranges("a", 10, 20), ranges("b", 21, 30), vip("c")], pools).check().is_ok());
    }
}
