//! What is remembered of flows, for people.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use lb_abi::{
    flow::{CLOSING, FlowKey, FlowRecord},
    subject,
};

use super::{error::Result, store::Store};
use crate::model::BackendId;

/// One record of `FLOWS`. There are records only for flows through slots that are moving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Name of the VIP, where all flows of a client, or all to a port, are remembered as one; of a single flow the
    /// destination says it. In a group only the client is real (protocol [`subject::SOURCE`]), or only the
    /// destination's port ([`subject::PORT`]).
    pub group_of: Option<Arc<str>>,
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
pub(super) fn read(
    store: &impl Store,
    vip_names: &BTreeMap<u32, Arc<str>>,
    max: usize,
) -> Result<(Vec<Flow>, usize)> {
    let (mut flows, mut omitted) = (Vec::new(), 0);
    store.for_each_flow(&mut |key, record| match flows.len() < max {
        true => flows.push(flow(key, record, vip_names)),
        false => omitted += 1,
    })?;
    Ok((flows, omitted))
}

fn flow(key: &FlowKey, record: &FlowRecord, vip_names: &BTreeMap<u32, Arc<str>>) -> Flow {
    let address = |octets, port| {
        let ip: IpAddr = Ipv6Addr::from(octets).to_canonical();
        SocketAddr::new(ip, port)
    };
    let (source_port, destination_port) = match key.protocol {
        subject::SOURCE => (0, 0),
        subject::PORT => (0, key.source_port.host()),
        _ => (key.source_port.host(), key.destination_port.host()),
    };
    Flow {
        group_of: subject::vip_of_group(key).and_then(|index| vip_names.get(&index).cloned()),
        source: address(key.source, source_port),
        destination: address(key.destination, destination_port),
        protocol: key.protocol,
        backend: BackendId(record.backend),
        seen: record.seen,
        closing: record.state & CLOSING != 0,
    }
}

#[cfg(test)]
mod tests {
    use lb_abi::{
        be::Be16,
        vip::{HASH_PORT, HASH_SOURCE, VipEntry},
    };

    use super::*;

    #[test]
    fn addresses_come_back_as_people_write_them() {
        let mut key = FlowKey { source_port: Be16::new(40_000), protocol: 6, ..FlowKey::default() };
        key.source[10..].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        key.destination = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
        let record = FlowRecord { backend: 7, epoch: 1, state: CLOSING, seen: 9 };
        let flow = flow(&key, &record, &BTreeMap::new());
        assert_eq!(flow.source.to_string(), "192.0.2.1:40000");
        assert_eq!(flow.destination.to_string(), "[2001:db8::1]:0");
        assert_eq!((flow.backend, flow.seen, flow.closing), (BackendId(7), 9, true));
        assert_eq!(flow.group_of, None);
    }

    #[test]
    fn a_group_names_its_vip_and_what_is_common_to_it() {
        let names = BTreeMap::from([(3, Arc::from("web"))]);
        let mut whole =
            FlowKey { source_port: Be16::new(9), destination_port: Be16::new(5060), ..FlowKey::default() };
        whole.source = Ipv6Addr::LOCALHOST.octets();
        for (flags, source, destination) in
            [(HASH_SOURCE, "[::1]:0", "[::]:0"), (HASH_PORT, "[::]:0", "[::]:5060")]
        {
            let vip = VipEntry { vip: 3, flags, ..VipEntry::default() };
            let shown = flow(&subject::of(&vip, &whole), &FlowRecord::default(), &names);
            assert_eq!((&*shown.source.to_string(), &*shown.destination.to_string()), (source, destination));
            assert_eq!(shown.group_of.as_deref(), Some("web"));
        }
    }
}
