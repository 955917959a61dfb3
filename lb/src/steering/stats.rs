//! Counters of the programs, summed over the cores.

use std::{collections::BTreeMap, sync::Arc};

use aya::maps::{MapData, MapError, PerCpuArray, PerCpuValues};
use lb_abi::{
    counter::{FlowEvent, Traffic},
    interface::InterfaceEntry,
    names,
    nat::NatEvent,
    quic::QuicEvent,
    reason::Reason,
    steer::SteerCounters,
};

use super::{
    error::{Error, Result},
    interfaces::Counters,
    maps::{Maps, TrafficCounters},
};
use crate::model::BackendId;

/// One reading. Counters only grow while the maps live; they are not read at one instant.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Packets by verdict, in the order of [`Reason::ALL`].
    pub reasons: Vec<(Reason, u64)>,
    /// What became of flows, in the order of [`FlowEvent::ALL`].
    pub flow_events: Vec<(FlowEvent, u64)>,
    /// What led datagrams of QUIC VIPs, in the order of [`QuicEvent::ALL`].
    pub quic_events: Vec<(QuicEvent, u64)>,
    /// Traffic by VIP name.
    pub vips: BTreeMap<Arc<str>, Traffic>,
    /// Traffic by backend, of those that the maps know.
    pub backends: BTreeMap<BackendId, Traffic>,
}

impl Stats {
    /// Packets that met a reason.
    pub fn reason(&self, reason: Reason) -> u64 {
        self.reasons.iter().find(|(other, _)| *other == reason).map_or(0, |(_, count)| *count)
    }

    /// Flows that met an event.
    pub fn flow_event(&self, event: FlowEvent) -> u64 {
        self.flow_events.get(event as usize).map_or(0, |(_, count)| *count)
    }
}

/// Reads the counters of verdicts and flows, and the traffic of these VIPs and backends.
pub(super) fn read(
    maps: &Maps,
    vips: &BTreeMap<u32, Arc<str>>,
    backends: impl Iterator<Item = BackendId>,
) -> Result<Stats> {
    let word = |map: &PerCpuArray<MapData, u64>, name, index: u32| -> Result<u64> {
        let values = map.get(&index, 0).map_err(Error::map(name))?;
        Ok(values.iter().sum())
    };
    let reasons = Reason::ALL
        .iter()
        .map(|&reason| Ok((reason, word(&maps.reasons, names::MAP_REASONS, reason as u32)?)));
    let flow_events = FlowEvent::ALL
        .iter()
        .map(|&event| Ok((event, word(&maps.flow_events, names::MAP_FLOW_EVENTS, event as u32)?)));
    let quic_events = QuicEvent::ALL
        .iter()
        .map(|&event| Ok((event, word(&maps.quic_events, names::MAP_QUIC_EVENTS, event as u32)?)));
    let vips = vips
        .iter()
        .map(|(&index, name)| Ok((name.clone(), traffic(&maps.vip_traffic, names::MAP_VIP_TRAFFIC, index)?)));
    let backends = backends
        .map(|id| Ok((id, traffic(&maps.backend_traffic, names::MAP_BACKEND_TRAFFIC, u32::from(id.0))?)));
    Ok(Stats {
        reasons: reasons.collect::<Result<_>>()?,
        flow_events: flow_events.collect::<Result<_>>()?,
        quic_events: quic_events.collect::<Result<_>>()?,
        vips: vips.collect::<Result<_>>()?,
        backends: backends.collect::<Result<_>>()?,
    })
}

impl Counters for Maps {
    fn entry(&self, place: u32) -> Result<InterfaceEntry> {
        self.interfaces.get(&place, 0).map_err(Error::map(names::MAP_INTERFACES))
    }

    fn put_entry(&mut self, place: u32, entry: InterfaceEntry) -> Result<()> {
        self.interfaces.set(place, entry, 0).map_err(Error::map(names::MAP_INTERFACES))
    }

    fn drops(&self, counter: u32) -> Result<u64> {
        let values = self.drops.get(&counter, 0).map_err(Error::map(names::MAP_DROPS))?;
        Ok(values.iter().sum())
    }

    fn zero_drops(&mut self, counter: u32) -> Result<()> {
        let cores = self.drops.get(&counter, 0).map_err(Error::map(names::MAP_DROPS))?.len();
        PerCpuValues::try_from(vec![0; cores])
            .map_err(MapError::from)
            .and_then(|zeros| self.drops.set(counter, zeros, 0))
            .map_err(Error::map(names::MAP_DROPS))
    }
}

/// Events of translated flows.
pub(super) fn nat_events(maps: &Maps) -> Result<[u64; NatEvent::ALL.len()]> {
    let mut events = [0; NatEvent::ALL.len()];
    for (event, count) in NatEvent::ALL.iter().zip(&mut events) {
        let values = maps.nat.events.get(&(*event as u32), 0).map_err(Error::map(names::MAP_NAT_EVENTS))?;
        *count = values.iter().sum();
    }
    Ok(events)
}

/// Verdicts alone, for a host that only decapsulates.
pub(super) fn reasons(map: &PerCpuArray<MapData, u64>) -> Result<Vec<(Reason, u64)>> {
    let read = |&reason: &Reason| {
        let values = map.get(&(reason as u32), 0).map_err(Error::map(names::MAP_REASONS))?;
        Ok((reason, values.iter().sum()))
    };
    Reason::ALL.iter().map(read).collect()
}

fn traffic(map: &TrafficCounters, name: &'static str, index: u32) -> Result<Traffic> {
    let values = map.get(&index, 0).map_err(Error::map(name))?;
    Ok(values.iter().fold(Traffic::default(), |sum, one| Traffic {
        packets: sum.packets + one.packets,
        bytes: sum.bytes + one.bytes,
        new_flows: sum.new_flows + one.new_flows,
    }))
}

/// Connections of one listener group that went to another worker than their own.
pub(super) fn relieved(maps: &Maps, group: u32) -> Result<u64> {
    let values = maps.steer_relieved.get(&group, 0).map_err(Error::map(names::MAP_STEER_RELIEVED))?;
    Ok(values.iter().sum())
}

/// Choices of one listener group.
pub(super) fn steer(maps: &Maps, group: u32) -> Result<SteerCounters> {
    let values = maps.steer_counters.get(&group, 0).map_err(Error::map(names::MAP_STEER_COUNTERS))?;
    Ok(values.iter().fold(SteerCounters::default(), |sum, one| SteerCounters {
        by_core: sum.by_core + one.by_core,
        by_hash: sum.by_hash + one.by_hash,
        missing: sum.missing + one.missing,
    }))
}
