//! Which health checks go the way of a VIP's traffic, and which VIP's.
//!
//! A backend behind `ipip` or `l2dsr` is of use only if it takes our packets apart and holds the VIP; its own address
//! may answer all the same. So a check goes to the VIP's address, on the backend, where the VIP has the checked port
//! and an address of the backend's family. Else, behind `gue` and `nat`, and where the backend is this box itself, it
//! goes to the backend's own address.

use std::{collections::BTreeSet, net::IpAddr};

use super::desired::Outer;
use crate::{
    config::{Config, Forward, Snapshot, Transport, Vip},
    steering::ProbeWay,
};

/// The ways of all checks that go so. A probe has its backend's id as its number. `local` are backends with an address
/// of this box.
pub(super) fn ways(
    config: &Config,
    snapshot: &Snapshot,
    outer: Outer,
    local: &BTreeSet<IpAddr>,
) -> Vec<ProbeWay> {
    let mut ways = Vec::new();
    for pool in &snapshot.pools {
        let Some(health) = config.pools.get(&pool.name).and_then(|config| config.health.as_ref()) else {
            continue;
        };
        if !health.kind.may_go_through() {
            continue;
        }
        for backend in &pool.backends {
            let Some(own) = backend.address.socket().filter(|own| !local.contains(&own.ip())) else {
                continue;
            };
            let ip = own.ip();
            let port = health.port.unwrap_or(own.port());
            let transport = health.kind.transport();
            let leads_to = |vip: &&Vip| vip.pools().any(|name| *name == pool.name);
            let mut vips = config.vips.values().filter(leads_to);
            ways.extend(vips.find_map(|vip| {
                let (vip, outer) = (address(vip, ip, port, transport)?, outer_of(vip.forward, ip, outer)?);
                Some(ProbeWay { number: backend.id.0, vip, backend: ip, outer })
            }));
        }
    }
    ways
}

/// The VIP's address to ask for, of the family of `like`.
fn address(vip: &Vip, like: IpAddr, port: u16, transport: Transport) -> Option<IpAddr> {
    let is_ours = vip.ports.iter().any(|own| own.transport == transport && own.contains(port));
    vip.addresses.iter().find(|address| is_ours && address.is_ipv4() == like.is_ipv4()).copied()
}

/// The outer source, or that there is no outer header. `None`: packets do not get there at all.
fn outer_of(forward: Forward, to: IpAddr, outer: Outer) -> Option<Option<IpAddr>> {
    match forward {
        Forward::Ipip => outer.source(to).map(Some),
        Forward::L2dsr => Some(None),
        // lb_probe_out writes no UDP header: such a check goes to the backend's own address.
        Forward::Gue => None,
        // Nothing of the VIP's is on the backend.
        Forward::Nat => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::fixture,
        config::{Health, VipPort},
        model::Generation,
    };

    /// VIP `dns` has `192.0.2.53` and 53/tcp among others; its pool has one IPv4 backend.
    fn ways_with(edit: impl FnOnce(&mut Config)) -> Vec<ProbeWay> {
        ways_beside(&[], edit)
    }

    fn ways_beside(local: &[&str], edit: impl FnOnce(&mut Config)) -> Vec<ProbeWay> {
        let mut config = (*fixture::view().config).clone();
        let pool = config.vips["dns"].pool.clone();
        let Some(vip) = config.vips.get_mut("dns") else { panic!("no vip") };
        vip.addresses = vec!["192.0.2.53".parse().unwrap(), "2001:db8::53".parse().unwrap()];
        vip.ports = vec![VipPort::one(53, Transport::Tcp)];
        let health = config.pools.values().find_map(|pool| pool.health.clone()).unwrap();
        let Some(pool) = config.pools.get_mut(&pool) else { panic!("no pool") };
        pool.health = Some(Health { port: Some(53), ..health });
        pool.backends.truncate(1);
        pool.backends[0] = crate::config::Backend::at("10.0.1.53".parse().unwrap(), None);
        edit(&mut config);
        let ids = &mut crate::config::BackendIds::new();
        let snapshot = Snapshot::build(&config, Generation(1), ids).unwrap();
        let mut outer = Outer::default();
        outer.add("10.0.0.1".parse().unwrap());
        ways(&config, &snapshot, outer, &local.iter().map(|address| address.parse().unwrap()).collect())
    }

    #[test]
    fn a_check_of_a_vips_port_goes_to_the_vip() {
        let ways = ways_with(|_| ());
        let [way] = ways[..] else { panic!("{ways:?}") };
        assert_eq!(way.vip, "192.0.2.53".parse::<IpAddr>().unwrap());
        assert_eq!(way.backend, "10.0.1.53".parse::<IpAddr>().unwrap());
        assert_eq!(way.outer, "10.0.0.1".parse().ok());
        assert_ne!(way.number, 0, "it is a backend's id");
        let l2dsr = ways_with(|config| config.vips.get_mut("dns").unwrap().forward = Forward::L2dsr);
        assert_eq!(l2dsr[0].outer, None);
        for port in [VipPort { port: 50, last: 60, transport: Transport::Tcp }, VipPort::any(Transport::Tcp)]
        {
            let wide = ways_with(|config| config.vips.get_mut("dns").unwrap().ports = vec![port]);
            assert_eq!(wide, [way], "the VIP has it by {port}");
        }
    }

    #[test]
    fn a_pool_of_some_clients_is_behind_the_vip_too() {
        let whole = ways_with(|_| ());
        let some = ways_with(|config| {
            let db = config.pools.keys().find(|name| **name != config.vips["dns"].pool).unwrap().clone();
            let vip = config.vips.get_mut("dns").unwrap();
            let own = std::mem::replace(&mut vip.pool, db);
            vip.sources = [("198.51.100.0/24".parse().unwrap(), own)].into();
        });
        let of = |ways: &[ProbeWay]| ways.iter().filter(|way| way.backend == whole[0].backend).count();
        assert_eq!((of(&whole), of(&some)), (1, 1));
    }

    #[test]
    fn a_backend_that_is_this_box_is_asked_itself() {
        assert!(ways_beside(&["10.0.1.53"], |_| ()).is_empty());
        assert_eq!(ways_beside(&["10.0.1.54"], |_| ()).len(), 1);
    }

    #[test]
    fn what_the_vip_does_not_answer_is_asked_of_the_backend_itself() {
        let other_port = |config: &mut Config| {
            let pool = config.vips["dns"].pool.clone();
            config.pools.get_mut(&pool).unwrap().health.as_mut().unwrap().port = Some(54);
        };
        let v6 = |config: &mut Config| {
            config.vips.get_mut("dns").unwrap().addresses.truncate(1);
            let pool = config.vips["dns"].pool.clone();
            config.pools.get_mut(&pool).unwrap().backends[0] =
                crate::config::Backend::at("2001:db8::9".parse().unwrap(), None);
        };
        assert!(ways_with(other_port).is_empty());
        let only_prefix = |config: &mut Config| {
            let vip = config.vips.get_mut("dns").unwrap();
            vip.prefixes = vec!["192.0.2.0/24".parse().unwrap()];
            vip.addresses = vec![];
        };
        assert!(ways_with(only_prefix).is_empty(), "there is no one address to ask for");
        let v6_without_source = |config: &mut Config| {
            v6(config);
            config.vips.get_mut("dns").unwrap().addresses.push("2001:db8::53".parse().unwrap());
        };
        assert!(ways_with(v6).is_empty(), "the VIP has no such address");
        assert!(ways_with(v6_without_source).is_empty(), "there is no IPv6 address to send from");
    }
}
