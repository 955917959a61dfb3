//! `[vip.NAME]`.

use std::{collections::HashSet, ops::Range, sync::Arc};

use ipnet::IpNet;

use super::{
    address, nat_source,
    pool::reference,
    quic_draft::QuicDraft,
    reader::{At, Fault, Table, choose},
    schema,
    sources::SourcesDraft,
};
use crate::config::{Forward, HashBy, Vip, VipPort};

/// What was read of a VIP.
pub(super) struct VipDraft {
    pub(super) name: Arc<str>,
    /// Of its header.
    pub(super) span: Range<usize>,
    /// Single addresses are prefixes of full length here.
    pub(super) addresses: Vec<At<IpNet>>,
    pub(super) ports: Vec<At<VipPort>>,
    pub(super) forward: Option<At<Forward>>,
    pub(super) pool: Option<At<Arc<str>>>,
    flows_none: bool,
    /// As a whole, where it is given.
    pub(super) nat_source: Option<At<Vec<At<IpNet>>>>,
    pub(super) hash: Option<At<HashBy>>,
    pub(super) quic: Option<QuicDraft>,
    pub(super) sources: SourcesDraft,
}

impl VipDraft {
    pub(super) fn read(name: Arc<str>, table: &Table<'_>) -> Self {
        let addresses_rule = "must be an array of addresses, such as [\"192.0.2.53\"]";
        let addresses =
            table.required("address", addresses_rule).and_then(|value| value.items(addresses_rule));
        let ports_rule = "must be an array of ports, such as [\"53/udp\", \"53/tcp\"]";
        let ports = table.required("ports", ports_rule).and_then(|value| value.items(ports_rule));
        let forward = table.required("forward", "must be \"ipip\", \"gue\", \"l2dsr\" or \"nat\"");
        let flows = table.value("flows").and_then(|value| value.choice(&schema::FLOWS));
        Self {
            name,
            span: table.span.clone(),
            addresses: addresses
                .unwrap_or_default()
                .iter()
                .filter_map(|item| item.parsed("an address is a string", address::vip))
                .collect(),
            ports: ports
                .unwrap_or_default()
                .iter()
                .filter_map(|item| {
                    item.parsed("a port is a string with its protocol, such as \"53/udp\"", port)
                })
                .collect(),
            forward: forward.and_then(|value| value.choice(&schema::FORWARDS)),
            pool: reference(table.required("pool", "must be the name of a pool"), "pool"),
            flows_none: flows.is_some(),
            nat_source: table.value("nat_source").map(|value| nat_source::sources(&value)),
            hash: table.value("hash").and_then(|value| value.choice(&schema::HASHES)),
            quic: QuicDraft::read(table),
            sources: SourcesDraft::read(table),
        }
    }

    /// References to its pool and to those of some clients, each name once.
    pub(super) fn pools(&self) -> impl Iterator<Item = &At<Arc<str>>> {
        let mut seen = HashSet::new();
        let all = std::iter::once(&self.pool).chain(&self.sources.pools).flatten();
        all.filter(move |at| seen.insert(&*at.value))
    }

    pub(super) fn hashes_by_source(&self) -> bool {
        self.hash.as_ref().is_some_and(|at| at.value == HashBy::Source)
    }

    /// `None` only where a problem was reported.
    pub(super) fn build(self) -> Option<Vip> {
        let nets = self.addresses.into_iter().map(|at| at.value);
        let (addresses, prefixes): (Vec<_>, Vec<_>) =
            nets.partition(|net| net.prefix_len() == net.max_prefix_len());
        Some(Vip {
            addresses: addresses.into_iter().map(|net| net.addr()).collect(),
            prefixes,
            ports: self.ports.into_iter().map(|at| at.value).collect(),
            forward: self.forward?.value,
            pool: self.pool?.value,
            flows_none: self.flows_none,
            nat_source: self.nat_source.into_iter().flat_map(|at| at.value).map(|at| at.value).collect(),
            hash: self.hash.map(|at| at.value).unwrap_or_default(),
            quic: self.quic.map(QuicDraft::build),
            sources: self.sources.build()?,
        })
    }
}

/// `53/udp`, `8000-8100/tcp` or `0/tcp`.
fn port(text: &str) -> Result<VipPort, Fault> {
    let rule = "must be a port and its protocol, such as \"53/udp\"";
    let Some((ports, transport)) = text.split_once('/') else {
        let is_port = text.parse::<u16>().is_ok_and(|port| port > 0);
        return Err(Fault::new(rule).suggest(is_port.then(|| format!("{text}/tcp"))));
    };
    let transport = choose(transport, &schema::TRANSPORTS).map_err(|fault| {
        Fault::new(rule).suggest(fault.suggestion.map(|transport| format!("{ports}/{transport}")))
    })?;
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok())?;
    if ports == "*" {
        return Err(Fault::new(rule).suggest(Some(format!("{}", VipPort::any(transport)))));
    }
    if let Some((first, last)) = ports.split_once('-') {
        return match (number(first), number(last)) {
            (Some(0 | 1), Some(u16::MAX)) => {
                Err(Fault::new(rule).suggest(Some(format!("{}", VipPort::any(transport)))))
            }
            (Some(port @ 1..), Some(last)) if port < last => Ok(VipPort { port, last, transport }),
            _ => Err(Fault::new(
                "must be a range from a lower port to a higher one, such as \"8000-8100/tcp\"",
            )),
        };
    }
    match number(ports) {
        Some(0) => Ok(VipPort::any(transport)),
        Some(port) => Ok(VipPort::one(port, transport)),
        None => Err(Fault::new("must be a port from 1 to 65535 and its protocol, such as \"53/udp\"")),
    }
}
