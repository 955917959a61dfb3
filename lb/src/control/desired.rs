//! From a config to what the packet path should do.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use ipnet::{IpAddrRange, IpNet, Ipv4AddrRange, Ipv4Net, Ipv6AddrRange, Ipv6Net};
use lb_abi::limit::Limits;

use super::lineage;
use crate::{
    config::{Config, Forward, Gateway, NewFlows, PoolSnapshot, Snapshot, Transport, Vip, VipPort, Xdp},
    steering::{Desired, DesiredBackend, DesiredPool, DesiredVip, derive_key},
    sys::interfaces,
};

/// How long a TCP flow without packets is remembered. As IPVS has it (net/netfilter/ipvs/ip_vs_proto_tcp.c,
/// `IP_VS_TCP_S_ESTABLISHED`, Linux 6.12).
const TCP_FLOW_IDLE: Duration = Duration::from_secs(900);
/// The same for UDP, as Katran has it.
const UDP_FLOW_IDLE: Duration = Duration::from_secs(30);

/// Outer sources of IPIP and GUE, by family: one address, or a prefix from which each flow has its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outer {
    v4: Option<Ipv4Net>,
    v6: Option<Ipv6Net>,
}

impl Outer {
    /// The configured prefix, else the primary address of the first interface that has one, per family.
    ///
    /// # Errors
    /// Those of getifaddrs(3).
    pub(super) fn of(xdp: &Xdp) -> io::Result<Self> {
        let mut outer = Self::default();
        for prefix in &xdp.outer_source {
            match *prefix {
                IpNet::V4(v4) => outer.v4 = Some(v4),
                IpNet::V6(v6) => outer.v6 = Some(v6),
            }
        }
        for interface in &xdp.interfaces {
            interfaces::addresses(&interface.name)?.into_iter().for_each(|address| outer.add(address));
        }
        Ok(outer)
    }

    /// What comes for a source of translated flows and belongs to none is dropped: no address for anything else.
    fn taken(self, config: &Config) -> Vec<String> {
        let own = [self.v4.map(IpNet::from), self.v6.map(IpNet::from)];
        let mut taken = Vec::new();
        for (name, vip) in &config.vips {
            let overlap =
                |own: &&IpNet| vip.nat_source.iter().any(|net| net.contains(*own) || own.contains(net));
            for own in own.iter().flatten().filter(overlap) {
                taken.push(format!(
                    "vip {name}: nat_source overlaps {own}, this host's own: whatever else speaks to addresses of \
                     both is dropped (nat-unknown)"
                ));
            }
        }
        taken
    }

    /// Source of a single outer header to that address: of a prefix, its first.
    pub(super) fn source(self, to: IpAddr) -> Option<IpAddr> {
        match to {
            IpAddr::V4(_) => self.v4.map(|net| net.addr().into()),
            IpAddr::V6(_) => self.v6.map(|net| net.addr().into()),
        }
    }

    /// Of each family this one's source, else the other's.
    pub(super) fn or(self, other: Self) -> Self {
        Self { v4: self.v4.or(other.v4), v6: self.v6.or(other.v6) }
    }

    /// What the maps should hold, with these sources.
    pub(super) fn put_into(self, desired: Desired) -> Desired {
        Desired { outer_v4: self.v4, outer_v6: self.v6, ..desired }
    }

    pub(super) fn add(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.v4 = self.v4.or(Some(v4.into())),
            // A router would not send an error back to a link-local source, nor forward a packet from one.
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {}
            IpAddr::V6(v6) => self.v6 = self.v6.or(Some(v6.into())),
        }
    }

    /// What cannot be reached by a tunnel, one sentence for each VIP; and what translation takes away.
    pub(super) fn shortages(self, config: &Config) -> Vec<String> {
        let mut shortages = self.taken(config);
        for (name, vip) in
            config.vips.iter().filter(|(_, vip)| matches!(vip.forward, Forward::Ipip | Forward::Gue))
        {
            let pools = vip.pools().filter_map(|pool| config.pools.get(pool));
            let backends: Vec<_> = pools.flat_map(|pool| &pool.backends).collect();
            let lacks = |is_lost: bool, family: &str, wants: fn(&IpAddr) -> bool| {
                let is_wanted = backends.iter().filter_map(|backend| backend.ip()).any(|ip| wants(&ip));
                (is_lost && is_wanted).then(|| {
                    format!(
                        "vip {name}: no interface of [xdp] has an {family} address to send from, so packets \
                         for backends with {family} addresses are dropped (no-route)"
                    )
                })
            };
            shortages.extend(lacks(self.v4.is_none(), "IPv4", IpAddr::is_ipv4));
            shortages.extend(lacks(self.v6.is_none(), "IPv6", IpAddr::is_ipv6));
        }
        shortages
    }
}

/// What the maps should hold. Keys are derived from `secret` by name, so that nodes with one secret agree; tables
/// come with their lineage from `state_dir`.
pub(super) fn desired(
    config: &Config,
    snapshot: &Snapshot,
    secret: [u64; 2],
    outer: Outer,
    state_dir: &Path,
) -> Desired {
    let names = |vip: &Vip, pool: &Arc<str>| vip.pools().any(|name| name == pool);
    let used = |pool: &&PoolSnapshot| config.vips.values().any(|vip| names(vip, &pool.name));
    let translated =
        |pool: &Arc<str>| config.vips.values().any(|vip| vip.forward == Forward::Nat && names(vip, pool));
    let pool = |pool: &PoolSnapshot| DesiredPool {
        name: pool.name.clone(),
        table_key: derive_key(secret, "table", &pool.name),
        backends: pool
            .backends
            .iter()
            // Behind a VIP all have one.
            .filter_map(|backend| Some((backend, backend.address.socket()?)))
            .map(|(backend, address)| DesiredBackend {
                id: backend.id,
                address: address.ip(),
                // Elsewhere the port says nothing to packets, and must not tell tables apart.
                port: Some(address.port()).filter(|port| translated(&pool.name) && *port != 0),
                weight: backend.weight,
            })
            .collect(),
        lineage: lineage::load(state_dir, &pool.name).map(Arc::new),
    };
    Desired {
        generation: snapshot.generation,
        vips: config.vips.iter().flat_map(|(name, vip)| vips(name, vip, secret)).collect(),
        pools: snapshot.pools.iter().filter(used).map(pool).collect(),
        // What stands elsewhere than in the config is added by who reads it.
        deny: Arc::default(),
        allow: Arc::default(),
        local: <_>::default(),
        guard_key: derive_key(secret, "guard", ""),
        tag_keys: ["high", "low"].map(|half| derive_key(secret, "flows", half)),
        outer_v4: outer.v4,
        outer_v6: outer.v6,
        gateways: gateways(config),
        sources: sources(config),
        limits: config.xdp.as_ref().and_then(|xdp| xdp.new_flows).map(limits),
        quic: <_>::default(),
    }
}

/// Addresses of backends that this box has itself.
///
/// # Errors
/// Those of getifaddrs(3).
pub(super) fn local(pools: &[DesiredPool]) -> io::Result<BTreeSet<IpAddr>> {
    let backends = pools.iter().flat_map(|pool| &pool.backends);
    let backends: BTreeSet<IpAddr> = backends.map(|backend| backend.address).collect();
    Ok(interfaces::all_addresses()?.into_iter().filter(|address| backends.contains(address)).collect())
}

fn gateways(config: &Config) -> BTreeMap<Arc<str>, Gateway> {
    let interfaces = config.xdp.iter().flat_map(|xdp| &xdp.interfaces);
    interfaces.filter_map(|interface| Some((interface.name.clone(), interface.gateway?))).collect()
}

fn limits(new_flows: NewFlows) -> Limits {
    Limits::new(new_flows.above, new_flows.rate, new_flows.burst)
}

fn sources(config: &Config) -> BTreeMap<Arc<str>, BTreeMap<IpNet, Arc<str>>> {
    let some = config.vips.iter().filter(|(_, vip)| !vip.sources.is_empty());
    some.map(|(name, vip)| (name.clone(), vip.sources.clone())).collect()
}

/// A VIP's ports, once for each way of remembering; all under its name, so that they count together.
fn vips(name: &Arc<str>, vip: &Vip, secret: [u64; 2]) -> Vec<DesiredVip> {
    let mut by_memory: BTreeMap<(bool, Duration), Vec<VipPort>> = BTreeMap::new();
    for &port in &vip.ports {
        let idle = match port.transport {
            Transport::Tcp => TCP_FLOW_IDLE,
            Transport::Udp => UDP_FLOW_IDLE,
        };
        // Translation has a memory of its own.
        let is_flowless = vip.is_flowless(port) || vip.forward == Forward::Nat;
        by_memory.entry((is_flowless, idle)).or_default().push(port);
    }
    let desired = |((flows_none, flow_idle), ports)| DesiredVip {
        name: name.clone(),
        addresses: vip.addresses.clone(),
        prefixes: vip.prefixes.clone(),
        ports,
        forward: vip.forward,
        pool: vip.pool.clone(),
        nat_source: vip.nat_source.iter().flat_map(|net| addresses(*net)).collect(),
        flows_none,
        hash: vip.hash,
        flow_idle,
        hash_key: derive_key(secret, "flow", name),
    };
    by_memory.into_iter().map(desired).collect()
}

/// Every address of a prefix: what is routed to us needs none for the network itself and none for broadcasts.
fn addresses(net: IpNet) -> IpAddrRange {
    match net {
        IpNet::V4(net) => IpAddrRange::V4(Ipv4AddrRange::new(net.network(), net.broadcast())),
        IpNet::V6(net) => IpAddrRange::V6(Ipv6AddrRange::new(net.network(), net.broadcast())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::fixture,
        config::{Interface, Spread},
    };

    #[test]
    fn ports_are_remembered_each_in_its_way() {
        let view = fixture::view();
        let mut config = (*view.config).clone();
        let Some(vip) = config.vips.get_mut("dns") else { panic!("no vip") };
        vip.flows_none = false;
        vip.ports = [(53, Transport::Udp), (53, Transport::Tcp), (443, Transport::Udp)]
            .map(|(port, transport)| VipPort::one(port, transport))
            .into();
        let desired = desired(&config, &view.snapshot, [1, 2], Outer::default(), Path::new("/nonexistent"));
        let shape: Vec<_> =
            desired.vips.iter().map(|vip| (vip.flows_none, vip.ports.len(), vip.flow_idle)).collect();
        assert_eq!(shape, [(false, 1, UDP_FLOW_IDLE), (false, 1, TCP_FLOW_IDLE), (true, 1, UDP_FLOW_IDLE)]);
        assert!(desired.vips.iter().all(|vip| vip.hash_key == desired.vips[0].hash_key));
        assert_eq!(desired.pools.len(), 1, "pool app has no vip");
        assert_eq!(desired.pools[0].backends[0].id.0, 3);
        assert_ne!(desired.pools[0].table_key, desired.vips[0].hash_key);
    }

    #[test]
    fn a_translating_vip_has_sources_ports_and_no_flow_records() {
        let view = fixture::view();
        let (mut config, mut snapshot) = ((*view.config).clone(), (*view.snapshot).clone());
        let Some(vip) = config.vips.get_mut("dns") else { panic!("no vip") };
        vip.forward = Forward::Nat;
        vip.nat_source = vec!["10.0.9.0/30".parse().unwrap(), "10.0.9.9/32".parse().unwrap()];
        let Some(pool) = snapshot.pools.iter_mut().find(|pool| &*pool.name == "dns") else {
            panic!("no pool")
        };
        pool.backends[0].address = "10.0.1.53:5353".parse::<std::net::SocketAddr>().unwrap().into();
        let desired = desired(&config, &snapshot, [1, 2], Outer::default(), Path::new("/nonexistent"));
        assert!(desired.vips.iter().all(|vip| vip.flows_none));
        let last: Vec<_> = desired.vips[0].nat_source.iter().map(ToString::to_string).collect();
        assert_eq!(last, ["10.0.9.0", "10.0.9.1", "10.0.9.2", "10.0.9.3", "10.0.9.9"]);
        assert_eq!(desired.pools[0].backends[0].port, Some(5353));
        let outer = Outer { v4: "10.0.9.9/32".parse().ok(), v6: None };
        let shortages = outer.shortages(&config);
        assert!(shortages[0].contains("nat_source overlaps 10.0.9.9/32"), "{shortages:?}");
        let outer = Outer { v4: "10.0.0.0/16".parse().ok(), v6: None };
        assert_eq!(outer.shortages(&config).len(), 1);
    }

    #[test]
    fn a_family_without_an_outer_address_is_said() {
        let view = fixture::view();
        let shortages = Outer::default().shortages(&view.config);
        assert_eq!(shortages.len(), 1, "{shortages:?}");
        assert!(shortages[0].contains("vip dns") && shortages[0].contains("IPv4"), "{shortages:?}");
        let mut outer = Outer::default();
        for address in ["fe80::1", "10.0.0.1", "10.0.0.2", "2001:db8::1"] {
            outer.add(address.parse().unwrap());
        }
        let first = Outer { v4: "10.0.0.1/32".parse().ok(), v6: "2001:db8::1/128".parse().ok() };
        assert_eq!(outer, first);
        assert!(outer.shortages(&view.config).is_empty());
        let lo = Interface { name: "lo".into(), mode: None, gateway: None };
        let (deny, allow) = <_>::default();
        let (new_flows, spread) = (None, Spread::Off);
        let mut xdp =
            Xdp { interfaces: vec![lo], deny, allow, outer_source: vec![], new_flows, spread, secret: None };
        assert_eq!(Outer::of(&xdp).unwrap().v4, "127.0.0.1/32".parse().ok());
        xdp.outer_source = vec!["198.18.0.0/24".parse().unwrap()];
        assert_eq!(Outer::of(&xdp).unwrap().v4, "198.18.0.0/24".parse().ok(), "a prefix comes first");
    }
}
