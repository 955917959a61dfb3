//! What is remembered of flows, for people.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use lb_abi::{
    flow::{CLOSING, FlowKey, FlowRecord},
    slot::{Phase, Slot},
    subject,
};

use super::{
    error::Result,
    places::{Place, Places},
    store::Store,
    sync::{Sync, slots_of},
};
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
    /// What the record does now.
    pub state: FlowState,
}

/// What a record does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    /// Keeps the flow with a backend that its slot was taken from.
    Stays,
    /// Keeps the flow with its slot's owner, for when that changes.
    Owned,
    /// As one of these, and a FIN or RST was seen: a new SYN goes to the owner.
    Closing,
    /// Its backend is down or gone: the next packet goes to the owner.
    Lost,
    /// Nothing: the flow was silent for too long, or its slot has settled since.
    Ended,
}

impl FlowState {
    /// For a column.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Stays => "stays with its backend",
            Self::Owned => "of the slot's owner",
            Self::Closing => "closing",
            Self::Lost => "backend down, re-picked by its next packet",
            Self::Ended => "ended, to be removed",
        }
    }
}

/// The first `max` records that the map gives, and how many more there are.
pub(super) fn read(sync: &Sync, store: &impl Store, max: usize, now: u32) -> Result<(Vec<Flow>, usize)> {
    let (mut flows, mut omitted) = (Vec::new(), 0);
    let places = Places::new(&sync.vips, &sync.sources);
    store.for_each_flow(&mut |key, record| match flows.len() < max {
        true => flows.push(flow(key, record, state(sync, store, &places, key, record, now), &sync.vip_names)),
        false => omitted += 1,
    })?;
    Ok((flows, omitted))
}

fn state(
    sync: &Sync,
    store: &impl Store,
    places: &Places<'_>,
    key: &FlowKey,
    record: &FlowRecord,
    now: u32,
) -> FlowState {
    let Some(Place { entry, region, at }) = places.of(key) else { return FlowState::Ended };
    let slot = slots_of(store, region).load(at);
    let is_silent = now.wrapping_sub(record.seen) as i32 > entry.flow_idle_ticks as i32;
    of(slot, record, is_silent, sync.serves(BackendId(record.backend)))
}

fn of(slot: Slot, record: &FlowRecord, is_silent: bool, serves: bool) -> FlowState {
    match record {
        _ if is_silent || slot.phase() == Phase::Settled => FlowState::Ended,
        _ if record.epoch != slot.epoch() => FlowState::Ended,
        _ if !serves => FlowState::Lost,
        _ if record.state & CLOSING != 0 => FlowState::Closing,
        _ if record.backend == slot.owner() => FlowState::Owned,
        _ => FlowState::Stays,
    }
}

fn flow(key: &FlowKey, record: &FlowRecord, state: FlowState, vip_names: &BTreeMap<u32, Arc<str>>) -> Flow {
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
        state,
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
        let flow = flow(&key, &record, FlowState::Closing, &BTreeMap::new());
        assert_eq!(flow.source.to_string(), "192.0.2.1:40000");
        assert_eq!(flow.destination.to_string(), "[2001:db8::1]:0");
        assert_eq!((flow.backend, flow.seen), (BackendId(7), 9));
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
            let subject = subject::of(&vip, &whole);
            let shown = flow(&subject, &FlowRecord::default(), FlowState::Owned, &names);
            assert_eq!((&*shown.source.to_string(), &*shown.destination.to_string()), (source, destination));
            assert_eq!(shown.group_of.as_deref(), Some("web"));
        }
    }

    #[test]
    fn a_record_is_called_what_it_does() {
        let slot = Slot::new(2, 1, Phase::Open, 5, 0);
        let record = FlowRecord { backend: 1, epoch: 5, state: 0, seen: 0 };
        assert_eq!(of(slot, &record, false, true), FlowState::Stays);
        assert_eq!(of(slot, &FlowRecord { backend: 2, ..record }, false, true), FlowState::Owned);
        assert_eq!(of(slot, &FlowRecord { state: CLOSING, ..record }, false, true), FlowState::Closing);
        assert_eq!(of(slot, &record, false, false), FlowState::Lost);
        assert_eq!(of(slot, &record, true, true), FlowState::Ended);
        assert_eq!(of(slot, &FlowRecord { epoch: 4, ..record }, false, true), FlowState::Ended);
        assert_eq!(of(Slot::settled(2, 5, 0), &record, false, true), FlowState::Ended);
    }
}
