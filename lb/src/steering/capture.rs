//! A capture: packets that `lb_capture` puts into a ring while `lb_ingress` hands them over to it.
//!
//! The ring is looked into, never waited for: waking a reader from the packet path would cost more than all else of
//! a capture.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Weak},
};

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, PerCpuValues, ProgramArray, RingBuf};
use lb_abi::{
    capture::{ANY, CaptureCounters, CaptureFilter, CaptureRecord, SNAP_MAX},
    names, pod,
};

use super::{
    Plane,
    error::{Error, Result},
    loader, netlink,
};

/// What the plane keeps of captures: the maps, and whether one runs.
pub(super) struct Captures {
    program: MapData,
    filter: Array<MapData, CaptureFilter>,
    ring: MapData,
    counters: MapData,
    budget: Array<MapData, u64>,
    running: Weak<()>,
}

/// One packet.
#[derive(Clone, Debug)]
pub struct Captured {
    /// What was done with it, and when.
    pub record: CaptureRecord,
    /// First bytes of its frame as it came in.
    pub frame: Vec<u8>,
}

/// A capture that runs until this is dropped.
pub struct Capture {
    program: ProgramArray<MapData>,
    ring: RingBuf<MapData>,
    counters: PerCpuArray<MapData, CaptureCounters>,
    /// Interfaces with `lb_ingress`, by index.
    pub interfaces: BTreeMap<u32, String>,
    /// VIPs by counter index.
    pub vips: BTreeMap<u32, Arc<str>>,
    _running: Arc<()>,
}

impl Captures {
    /// Takes the maps out of a loaded object.
    ///
    /// # Errors
    /// The object lacks one, or it is another kind of map.
    pub(super) fn take(object: &mut aya::Ebpf) -> Result<Self> {
        let mut take = |name| object.take_map(name).ok_or(Error::Missing { kind: "map", name });
        let raw = |map: Map, name| match map {
            Map::ProgramArray(data) | Map::RingBuf(data) | Map::PerCpuArray(data) => Ok(data),
            _ => Err(Error::Missing { kind: "map", name }),
        };
        Ok(Self {
            program: raw(take(names::MAP_CAPTURE_PROGRAM)?, names::MAP_CAPTURE_PROGRAM)?,
            filter: Array::try_from(take(names::MAP_CAPTURE_FILTER)?)
                .map_err(Error::map(names::MAP_CAPTURE_FILTER))?,
            ring: raw(take(names::MAP_CAPTURE_RING)?, names::MAP_CAPTURE_RING)?,
            counters: raw(take(names::MAP_CAPTURE_COUNTERS)?, names::MAP_CAPTURE_COUNTERS)?,
            budget: Array::try_from(take(names::MAP_CAPTURE_BUDGET)?)
                .map_err(Error::map(names::MAP_CAPTURE_BUDGET))?,
            running: Weak::new(),
        })
    }

    /// Opens them for one capture: nothing of an earlier one is left in them.
    fn open(&mut self, filter: CaptureFilter) -> Result<(ProgramArray<MapData>, Ring, Counters)> {
        let failed = Error::map(names::MAP_CAPTURE_RING);
        let ring = again(&self.ring, "dup of the ring")
            .and_then(|map| RingBuf::try_from(map).map_err(failed))
            .map(|mut ring| {
                while ring.next().is_some() {}
                ring
            })?;
        let mut counters = again(&self.counters, "dup of counters")
            .and_then(|map| Counters::try_from(map).map_err(Error::map(names::MAP_CAPTURE_COUNTERS)))?;
        counters
            .get(&0, 0)
            .and_then(|values| {
                PerCpuValues::try_from(vec![CaptureCounters::default(); values.len()]).map_err(MapError::from)
            })
            .and_then(|zeros| counters.set(0, zeros, 0))
            .map_err(Error::map(names::MAP_CAPTURE_COUNTERS))?;
        self.budget.set(0, 0, 0).map_err(Error::map(names::MAP_CAPTURE_BUDGET))?;
        self.filter.set(0, filter, 0).map_err(Error::map(names::MAP_CAPTURE_FILTER))?;
        let program = again(&self.program, "dup of the program's place")
            .and_then(|map| ProgramArray::try_from(map).map_err(Error::map(names::MAP_CAPTURE_PROGRAM)))?;
        Ok((program, ring, counters))
    }
}

type Ring = RingBuf<MapData>;
type Counters = PerCpuArray<MapData, CaptureCounters>;

/// Another handle on a map.
fn again(data: &MapData, call: &str) -> Result<Map> {
    let failed = |source| Error::Syscall { call: call.to_owned(), source };
    let fd: OwnedFd = data.fd().as_fd().try_clone_to_owned().map_err(failed)?;
    MapData::from_fd(fd).and_then(Map::from_map_data).map_err(Error::map("of a capture"))
}

impl Plane {
    /// Begins a capture. There is one at a time. Names go before what stands in the filter: only packets of this VIP,
    /// and such that came in by this interface.
    ///
    /// # Errors
    /// One is running, the VIP has no key in the maps, no interface carries `lb_ingress`, or the kernel refuses.
    pub fn capture(
        &mut self,
        mut filter: CaptureFilter,
        vip: Option<&str>,
        interface: Option<&str>,
    ) -> Result<Capture> {
        if self.captures.running.upgrade().is_some() {
            return Err(Error::Capturing);
        }
        if self.attached.is_empty() {
            return Err(Error::NothingAttached);
        }
        filter.vip = match vip {
            None => ANY,
            Some(name) => {
                let known = self.sync.vip_names.iter().find(|(_, known)| &***known == name);
                let index = known.map(|(index, _)| *index);
                index.ok_or_else(|| Error::VipUnknown { vip: name.to_owned() })?
            }
        };
        if let Some(name) = interface {
            if !self.attached.contains_key(name) {
                let attached = self.attached.keys().cloned().collect();
                return Err(Error::NotAttached { interface: name.to_owned(), attached });
            }
            filter.ingress = netlink::interface_index(name)?;
        }
        let names = self.attached.keys();
        let indexed = names.map(|name| Ok((netlink::interface_index(name)?, name.clone())));
        let interfaces = indexed.collect::<Result<_>>()?;
        let (mut place, ring, counters) = self.captures.open(filter)?;
        // The first one last: with it packets come.
        for (at, name) in (0..).zip(names::PROGRAMS_CAPTURE).collect::<Vec<_>>().into_iter().rev() {
            let program = loader::xdp(&mut self.object, name)?;
            let fd = program.fd().map_err(|source| Error::Program {
                action: format!("use {name}"),
                source: Box::new(source),
            })?;
            place.set(at, fd, 0).map_err(Error::map(names::MAP_CAPTURE_PROGRAM))?;
        }
        let running = Arc::new(());
        self.captures.running = Arc::downgrade(&running);
        let vips = self.sync.vip_names.clone();
        Ok(Capture { program: place, ring, counters, interfaces, vips, _running: running })
    }
}

impl Capture {
    /// The next packet in the ring. `None`: it is empty, for now.
    pub fn next_packet(&mut self) -> Option<Captured> {
        loop {
            let item = self.ring.next()?;
            let Some((record, rest)) = pod::read::<CaptureRecord>(&item) else { continue };
            let captured = (record.captured as usize).min(SNAP_MAX).min(rest.len());
            return Some(Captured { record, frame: rest.get(..captured)?.to_vec() });
        }
    }

    /// How many packets were looked at, wanted, written and lost so far.
    ///
    /// # Errors
    /// The map that refused.
    pub fn counters(&self) -> Result<CaptureCounters> {
        let values = self.counters.get(&0, 0).map_err(Error::map(names::MAP_CAPTURE_COUNTERS))?;
        Ok(values.iter().fold(CaptureCounters::default(), |sum, core| CaptureCounters {
            looked_at: sum.looked_at + core.looked_at,
            wanted: sum.wanted + core.wanted,
            written: sum.written + core.written,
            ring_full: sum.ring_full + core.ring_full,
            over_rate: sum.over_rate + core.over_rate,
        }))
    }

    /// Takes `lb_capture` out of the packet path. What is in the ring can still be read.
    ///
    /// # Errors
    /// The map that refused.
    pub fn stop(&mut self) -> Result<()> {
        match self.program.clear_index(&0) {
            // Nothing is there: stopped before.
            Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => {
                Ok(())
            }
            outcome => outcome.map_err(Error::map(names::MAP_CAPTURE_PROGRAM)),
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // An error leaves a program there that costs a little and is replaced by the next capture.
        _ = self.stop();
    }
}
