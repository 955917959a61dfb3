//! `vip.nat_source`: what may stand there.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    address,
    reader::{At, Fault, Value},
};

/// What it must be.
pub(super) const RULE: &str = "must be an array of addresses or prefixes that are routed to this box and used by nothing else, \
                    such as [\"10.0.9.0/28\"]";

/// `vip.nat_source`.
pub(super) fn sources(value: &Value<'_>) -> At<Vec<At<IpNet>>> {
    let items = value.items(RULE).unwrap_or_default();
    value.at(items.iter().filter_map(|item| item.parsed("a source is a string", source)).collect())
}

/// One address, or a prefix of them.
fn source(text: &str) -> Result<IpNet, Fault> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(address::unicast(ip)?.into());
    }
    let net = address::prefix(text)?;
    address::unicast(net.addr())?;
    Ok(net)
}

/// How many a prefix has.
pub(super) fn addresses(net: IpNet) -> usize {
    let bits = net.max_prefix_len() - net.prefix_len();
    1usize.checked_shl(bits.into()).unwrap_or(usize::MAX)
}
