//! `[vip.NAME]`.

use std::{net::IpAddr, ops::Range, sync::Arc};

use ipnet::IpNet;

use super::{
    address, nat,
    pool::reference,
    reader::{At, Fault, Table, choose},
    schema,
};
use crate::config::{Forward, Vip, VipPort};

/// What was read of a VIP.
pub(super) struct VipDraft {
    pub(super) name: Arc<str>,
    /// Of its header.
    pub(super) span: Range<usize>,
    pub(super) addresses: Vec<At<IpAddr>>,
    pub(super) ports: Vec<At<VipPort>>,
    pub(super) forward: Option<At<Forward>>,
    pub(super) pool: Option<At<Arc<str>>>,
    flows_none: bool,
    /// As a whole, where it is given.
    pub(super) nat_source: Option<At<Vec<At<IpNet>>>>,
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
            nat_source: table.value("nat_source").map(|value| nat::sources(&value)),
        }
    }

    /// `None` only where a problem was reported.
    pub(super) fn build(self) -> Option<Vip> {
        Some(Vip {
            addresses: self.addresses.into_iter().map(|at| at.value).collect(),
            ports: self.ports.into_iter().map(|at| at.value).collect(),
            forward: self.forward?.value,
            pool: self.pool?.value,
            flows_none: self.flows_none,
            nat_source: self.nat_source.into_iter().flat_map(|at| at.value).map(|at| at.value).collect(),
        })
    }
}

/// `53/udp`.
fn port(text: &str) -> Result<VipPort, Fault> {
    let rule = "must be a port and its protocol, such as \"53/udp\"";
    let Some((number, transport)) = text.split_once('/') else {
        let is_port = text.parse::<u16>().is_ok_and(|port| port > 0);
        return Err(Fault::new(rule).suggest(is_port.then(|| format!("{text}/tcp"))));
    };
    let transport = choose(transport, &schema::TRANSPORTS).map_err(|fault| {
        Fault::new(rule).suggest(fault.suggestion.map(|transport| format!("{number}/{transport}")))
    })?;
    let is_range = number
        .split_once('-')
        .is_some_and(|(first, last)| first.parse::<u16>().is_ok() && last.parse::<u16>().is_ok());
    if is_range || number == "0" || number == "*" {
        return Err(Fault::new("port ranges and any-port VIPs are not supported yet"));
    }
    let is_decimal = number.bytes().all(|byte| byte.is_ascii_digit());
    match number.parse() {
        Ok(port @ 1..) if is_decimal => Ok(VipPort { port, transport }),
        _ => Err(Fault::new("must be a port from 1 to 65535 and its protocol, such as \"53/udp\"")),
    }
}
