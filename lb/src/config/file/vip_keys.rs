//! What VIPs are addressed by: no two by the same, no ranges that overlap, nothing that takes a listener's packets.
//!
//! What precedence settles is no error: of all that fits a packet, the longest prefix counts (an address is the
//! longest), and of its ports a single one before a range before any port.

use std::collections::{BTreeSet, HashMap, HashSet};

use ipnet::IpNet;
use lb_abi::{bounds, directory::RANGES_MAX, lengths::VIP_LENGTHS_MAX};

use super::{
    listener::ListenerDraft,
    reader::{At, Fault, Findings, Show},
    vip::VipDraft,
};
use crate::config::{BindRange, Forward, Severity, Transport, VipPort};

/// Reports all that cannot be told apart.
pub(super) fn check(vips: &[VipDraft], listeners: &[ListenerDraft], findings: &Findings<'_>) {
    let mut owners: HashMap<(IpNet, VipPort), &str> = HashMap::new();
    let mut ranges: HashMap<(IpNet, Transport), Vec<(VipPort, &str)>> = HashMap::new();
    for vip in vips {
        own_repeats(vip, findings);
        for (address, port) in vip.addresses.iter().flat_map(|a| vip.ports.iter().map(move |p| (a, p))) {
            match owners.insert((address.value, port.value), &vip.name) {
                Some(owner) if owner != &*vip.name => {
                    let fault = Fault::new(format!("vip.{owner} has this address with port {}", port.value));
                    findings.error(address, fault);
                    continue;
                }
                Some(_) => continue,
                None => {}
            }
            if port.value.is_range() {
                let others = ranges.entry((address.value, port.value.transport)).or_default();
                range(vip, port, others, findings);
                others.push((port.value, &vip.name));
            }
        }
    }
    let most = bounds::VIP_RANGES as usize / 2;
    if let (true, Some(port)) = (ranges.len() > most, vips.iter().flat_map(|vip| &vip.ports).next()) {
        let count = ranges.len();
        findings
            .error(port, Fault::new(format!("{count} addresses have ranges of ports; {most} is the most")));
    }
    lengths(vips, findings);
    fragments(vips, findings);
    for listener in listeners {
        for bind in listener.bind.iter().filter(|bind| !bind.value.ip().is_unspecified()) {
            taken(vips, listener, bind, "these packets", |own| own.contains(bind.value), findings);
        }
        for range in &listener.ranges {
            taken(vips, listener, range, "some of these packets", |own| own.meets(&range.value), findings);
        }
    }
}

/// What a listener listens at, and whether a VIP has it, too.
fn taken<T>(
    vips: &[VipDraft],
    listener: &ListenerDraft,
    bind: &At<T>,
    what: &str,
    is_own: impl Fn(BindRange) -> bool,
    findings: &Findings<'_>,
) {
    let own_transport = if listener.takes_datagrams() { Transport::Udp } else { Transport::Tcp };
    let takes = |vip: &&VipDraft| {
        let mut keys = vip.addresses.iter().flat_map(|a| vip.ports.iter().map(move |p| (a, p.value)));
        keys.any(|(address, VipPort { port, last, transport })| {
            transport == own_transport && is_own(BindRange { net: address.value, first: port, last })
        })
    };
    if let Some(vip) = vips.iter().find(takes) {
        let (vip, listener) = (&vip.name, &listener.name);
        let fault = Fault::new(format!("vip.{vip} takes {what} before listener.{listener} sees any"));
        findings.error(bind, fault);
    }
}

/// One range beside the others of its address.
fn range(vip: &VipDraft, port: &At<VipPort>, others: &[(VipPort, &str)], findings: &Findings<'_>) {
    let overlaps = |other: VipPort| other.port <= port.value.last && port.value.port <= other.last;
    if let Some((other, owner)) = others.iter().find(|(other, _)| overlaps(*other)) {
        let of = if *owner == &*vip.name { String::new() } else { format!(" of vip.{owner}") };
        findings.error(port, Fault::new(format!("overlaps the range {other}{of} of the same address")));
    } else if others.len() == RANGES_MAX {
        findings
            .error(port, Fault::new(format!("is one too many: an address has at most {RANGES_MAX} ranges")));
    }
}

/// Every length costs each packet for none of the VIPs a look-up.
fn lengths(vips: &[VipDraft], findings: &Findings<'_>) {
    let mut lengths = [BTreeSet::new(), BTreeSet::new()];
    for address in vips.iter().flat_map(|vip| &vip.addresses) {
        let net = address.value;
        let lengths = &mut lengths[usize::from(net.addr().is_ipv6())];
        let is_prefix = net.prefix_len() < net.max_prefix_len();
        if is_prefix && lengths.insert(net.prefix_len()) && lengths.len() == VIP_LENGTHS_MAX + 1 {
            let fault = format!(
                "is one length too many: prefixes of one family have at most {VIP_LENGTHS_MAX} different ones"
            );
            findings.error(address, Fault::new(fault));
        }
    }
}

/// A fragment has no port: where ports are translated, or several VIPs share its address and protocol, it is nobody's.
fn fragments(vips: &[VipDraft], findings: &Findings<'_>) {
    for vip in vips.iter().filter(|vip| vip.hashes_by_source()) {
        let translates = vip.forward.as_ref().is_some_and(|at| at.value == Forward::Nat);
        if let (true, Some(hash)) = (translates, &vip.hash) {
            let fault = Fault::new(
                "fragments are dropped all the same: ports are translated with them, and a fragment has none",
            );
            findings.report(&hash.key, &hash.span, Show::Value, Severity::Warning, fault);
            continue;
        }
        let has = |transport| vip.ports.iter().any(|own| own.value.transport == transport);
        let mut others = vips.iter().filter(|other| {
            other.name != vip.name && other.ports.iter().any(|port| has(port.value.transport))
        });
        let shared = others.find_map(|other| {
            let mut pairs = vip.addresses.iter().flat_map(|a| other.addresses.iter().map(move |b| (a, b)));
            let (own, theirs) =
                pairs.find(|(a, b)| a.value.contains(&b.value) || b.value.contains(&a.value))?;
            Some((if own.value.contains(&theirs.value) { theirs } else { own }, &other.name))
        });
        if let (Some((address, other)), Some(hash)) = (shared, &vip.hash) {
            let net = address.value;
            let is_single = net.prefix_len() == net.max_prefix_len();
            let message = format!(
                "fragments to {} are dropped all the same: vip.{other} has ports of it too, and a fragment has none",
                if is_single { net.addr().to_string() } else { net.to_string() }
            );
            findings.report(&hash.key, &hash.span, Show::Value, Severity::Warning, Fault::new(message));
        }
    }
}

fn own_repeats(vip: &VipDraft, findings: &Findings<'_>) {
    let mut seen = HashSet::new();
    for address in vip.addresses.iter().filter(|at| !seen.insert(at.value)) {
        findings.error(address, Fault::new("this address is listed already"));
    }
    let mut seen = HashSet::new();
    for port in vip.ports.iter().filter(|at| !seen.insert(at.value)) {
        findings.error(port, Fault::new("this port is listed already"));
    }
}
