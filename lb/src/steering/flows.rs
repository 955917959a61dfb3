//! What is remembered of flows, for people.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use lb_abi::flow::{CLOSING, FlowKey, FlowRecord};

use super::{error::Result, store::Store};
use crate::model::BackendId;

/// One record of `FLOWS`. There are records only for flows through slots that are moving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Client.
    pub source: SocketAddr,
    /// VIP.
    pub destination: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Where it goes.
    pub backend: BackendId,
    /// Tick of its last packet.
    pub seen: u32,
    /// A FIN or RST was seen.
    pub closing: bool,
}

/// The first `max` records that the map gives, and how many more there are.
pub(super) fn read(store: &impl Store, max: usize) -> Result<(Vec<Flow>, usize)> {
    let (mut flows, mut omitted) = (Vec::new(), 0);
    store.for_each_flow(&mut |key, record| match flows.len() < max {
        true => flows.push(flow(key, record)),
        false => omitted += 1,
    })?;
    Ok((flows, omitted))
}

fn flow(key: &FlowKey, record: &FlowRecord) -> Flow {
    let address = |octets, port| {
        let ip: IpAddr = Ipv6Addr::from(octets).to_canonical();
        SocketAddr::new(ip, port)
    };
    Flow {
        source: address(key.source, key.source_port.host()),
        destination: address(key.destination, key.destination_port.host()),
        protocol: key.protocol,
        backend: BackendId(record.backend),
        seen: record.seen,
        closing: record.state & CLOSING != 0,
    }
}

#[cfg(test)]
mod tests {
    use lb_abi::be::Be16;

    use super::*;

    #[test]
    fn addresses_come_back_as_people_write_them() {
        let mut key = FlowKey { source_port: Be16::new(40_000), protocol: 6, ..FlowKey::default() };
        key.source[10..].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        key.destination = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
        let flow = flow(&key, &FlowRecord { backend: 7, epoch: 1, state: CLOSING, seen: 9 });
        assert_eq!(flow.source.to_string(), "192.0.2.1:40000");
        assert_eq!(flow.destination.to_string(), "[2001:db8::1]:0");
        assert_eq!((flow.backend, flow.seen, flow.closing), (BackendId(7), 9, true));
    }
}
