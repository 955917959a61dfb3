//! `forward = "nat"` and `vip.nat_source`: what must agree with it.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use lb_abi::bounds::NAT_SOURCES_MAX;

use super::{
    drafts::Drafts,
    nat_source::{RULE, addresses},
    pool::PoolDraft,
    reader::{Fault, Findings, Show},
    vip::VipDraft,
};
use crate::config::{Forward, Severity};

/// Whether a VIP and its pools agree with how it forwards.
pub(super) fn check(vip: &VipDraft, pools: &[&PoolDraft], findings: &Findings<'_>) {
    let Some(forward) = &vip.forward else { return };
    if forward.value != Forward::Nat {
        if let Some(sources) = &vip.nat_source {
            let rule = "only a VIP with forward = \"nat\" translates sources";
            findings.report(&sources.key, &sources.span, Show::KeyOnly, Severity::Error, Fault::new(rule));
        }
        return;
    }
    let Some(sources) = &vip.nat_source else {
        let key = format!("vip.{}.nat_source", vip.name);
        let fault = Fault::new(format!("missing: {RULE}"));
        return findings.report(&key, &vip.span, Show::KeyOnly, Severity::Error, fault);
    };
    let Some(first) = vip.addresses.first() else { return };
    let family = Family::of(first.value.addr());
    let others = vip.addresses.iter().filter(|at| Family::of(at.value.addr()) != family);
    for address in others {
        let rule = "a VIP with forward = \"nat\" has addresses of one family: nothing is translated between IPv4 and \
                    IPv6; make it two VIPs with a pool each";
        findings.error(address, Fault::new(rule));
    }
    for source in sources.value.iter().filter(|at| Family::of(at.value.addr()) != family) {
        let fault = Fault::new(format!("must be {}, as the VIP's addresses are", family.name()));
        findings.error(source, fault);
    }
    for backend in pools.iter().flat_map(|pool| &pool.backends) {
        if backend.value.ip().is_some_and(|ip| Family::of(ip) != family) {
            let fault = Fault::new(format!(
                "must be {}: vip.{} uses this pool, and forward = \"nat\" does not translate between IPv4 and IPv6",
                family.name(),
                vip.name
            ));
            findings.error(backend, fault);
        }
    }
}

/// What sources must not be, over all VIPs; and how many they are.
pub(super) fn check_all(drafts: &Drafts, findings: &Findings<'_>) {
    let mut used: Vec<(IpNet, String)> = Vec::new();
    for vip in &drafts.vips {
        used.extend(vip.addresses.iter().map(|at| (at.value, format!("an address of vip.{}", vip.name))));
    }
    for pool in &drafts.pools {
        let backend = format!("a backend of pool.{}", pool.name);
        used.extend(pool.backends.iter().filter_map(|at| Some((at.value.ip()?.into(), backend.clone()))));
    }
    for listener in &drafts.listeners {
        let of = format!("where listener.{} is bound", listener.name);
        used.extend(listener.bind.iter().map(|at| (at.value.ip().into(), of.clone())));
        used.extend(listener.ranges.iter().map(|at| (at.value.net, of.clone())));
    }
    let mut left = NAT_SOURCES_MAX as usize;
    for vip in &drafts.vips {
        let Some(sources) = &vip.nat_source else { continue };
        let mut seen = BTreeSet::new();
        for source in &sources.value {
            let net = source.value;
            let meets = |other: &IpNet| other.contains(&net) || net.contains(other);
            if let Some((other, what)) = used.iter().find(|(other, _)| meets(other)) {
                let is = if net.contains(other) { "contains" } else { "is within" };
                findings.error(source, Fault::new(format!("{is} {}, which is {what}", shown(other))));
            }
            if seen.iter().any(meets) {
                findings.error(source, Fault::new("overlaps another source of this VIP"));
            }
            seen.insert(net);
            let count = addresses(net);
            if count > left {
                let rule = format!("there can be at most {NAT_SOURCES_MAX} sources over all VIPs");
                findings.error(source, Fault::new(rule));
            }
            left = left.saturating_sub(count);
        }
    }
}

/// An address without the length that says that it is one.
fn shown(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}
