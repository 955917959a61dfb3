//! One core that runs the packet path over the shared maps. Between any two of its accesses everybody else may act.

use std::cell::Cell;

use lb_abi::{
    backend::BackendEntry,
    bounds::INSERTS_PER_TICK,
    counter::FlowEvent,
    flow::{FlowKey, FlowRecord, Inserts},
    hop::HopEntry,
    link::LinkEntry,
    meta::Meta,
    reason::Reason,
    slot::{Phase, Slot},
    tag::FlowTag,
    vip::{VipEntry, VipKey},
};
use lb_ebpf::{
    address::Address,
    choose::{self, Choice, Lead},
    env::{Env, FlowCell},
    flow::Flow,
    parse::Ports,
    route::{NextHop, Route, Unroutable},
    select::Stage,
    walk::Walk,
};

use crate::{
    maps::{CORES, Place},
    mutant::Mutant,
    run::Run,
};

/// Of one packet.
pub(crate) struct Core<'a> {
    run: &'a Run,
    at: usize,
    stage: Stage,
    /// As this program read it last.
    slot: Cell<Slot>,
    tick: Cell<u32>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its destination is no VIP now.
    NotOurs,
    /// Sent to a backend.
    Sent(Choice),
    /// Dropped.
    Dropped(Reason),
}

/// Runs the packet path on core `at` from the VIP on.
pub(crate) fn forward(run: &Run, at: usize, key: &FlowKey, stage: Stage) -> Fate {
    let core = Core { run, at: at % CORES, stage, slot: Cell::default(), tick: Cell::default() };
    let vip_key =
        VipKey { address: key.destination, port: key.destination_port, protocol: key.protocol, host_bits: 0 };
    let Some(vip) = core.vip(&vip_key) else { return Fate::NotOurs };
    let flow = Flow {
        source: Address::new(key.source),
        destination: Address::new(key.destination),
        ports: Ports { source: key.source_port, destination: key.destination_port },
        protocol: key.protocol,
    };
    let lead = Lead::of(vip, stage, flow.hash(vip.hash_key));
    match choose::select(&core, None, vip, &flow, stage, lead) {
        Ok(choice) => Fate::Sent(choice),
        Err(reason) => Fate::Dropped(reason),
    }
}

impl Core<'_> {
    fn is(&self, mutant: Mutant) -> bool {
        self.run.mutant == Some(mutant)
    }
}

impl Env for Core<'_> {
    fn meta(&self) -> Option<&Meta> {
        None
    }

    fn vip(&self, key: &VipKey) -> Option<&VipEntry> {
        self.run.pause();
        self.run.maps.vips.borrow().get(key).copied().filter(|entry| entry.table_len > 0)
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.run.pause();
        let slot = self.run.maps.slot(index)?;
        self.slot.set(slot);
        let is_moving = matches!(slot.phase(), Phase::Open | Phase::Sweeping);
        if is_moving && self.is(Mutant::PreviousIgnored) {
            return Some(Slot::new(
                slot.owner(),
                slot.owner(),
                slot.phase(),
                slot.epoch(),
                slot.changed_at(),
            ));
        }
        Some(slot)
    }

    fn backend(&self, id: u16) -> Option<&BackendEntry> {
        self.run.pause();
        self.run.maps.backends.get(usize::from(id)).map(Cell::get)
    }

    fn flow(&self, key: &FlowKey, _: FlowTag) -> Option<impl FlowCell> {
        self.run.pause();
        if self.is(Mutant::SynReadsNothing) && self.stage == Stage::Opening {
            return None;
        }
        self.run.maps.flows.find(key).map(|place| Held { core: self, place })
    }

    fn record(&self, key: &FlowKey, _: FlowTag, record: FlowRecord) -> Option<()> {
        self.run.pause();
        let flows = &self.run.maps.flows;
        if self.is(Mutant::InsertLost) && self.run.rng.one_in(4) {
            return Some(());
        }
        let place = match flows.take(key) {
            None if self.is(Mutant::Evicts) && flows.find(key).is_none() => {
                let keys = flows.keys();
                flows.remove(&keys[self.run.rng.within(0, keys.len() as u64) as usize]);
                flows.take(key)
            }
            place => place,
        }?;
        self.run.pause();
        // Whoever found the place meanwhile has begun the record.
        let cell = flows.at(place);
        (cell.get() == 0).then(|| cell.set(record.to_word()))
    }

    fn link(&self, _: u32) -> Option<&LinkEntry> {
        None
    }

    fn may_answer(&self) -> bool {
        false
    }

    fn inserts(&self) -> Inserts {
        let kept = self.run.maps.inserts[self.at].get();
        if kept.tick == self.tick.get() {
            return kept;
        }
        // A budget that so little traffic can spend.
        Inserts { tick: self.tick.get(), spent: INSERTS_PER_TICK - self.run.inserts_per_tick }
    }

    fn keep_inserts(&self, inserts: Inserts) {
        self.run.maps.inserts[self.at].set(inserts);
    }

    fn refused_at(&self) -> u32 {
        self.run.pause();
        self.run.maps.refused_at.get()
    }

    fn keep_refused_at(&self, tick: u32) {
        self.run.pause();
        self.run.maps.refused_at.set(tick);
    }

    fn now_ticks(&self) -> u32 {
        self.run.pause();
        self.tick.set(self.run.ticks());
        self.tick.get()
    }

    fn hop(&self, _: u16) -> Option<HopEntry> {
        None
    }

    fn keep_hop(&self, _: u16, _: HopEntry) {}

    fn route(&self, _: u32, _: &Route) -> Result<NextHop, Unroutable> {
        Err(Unroutable::NoRoute)
    }

    fn count(&self, _: Reason) {}

    fn count_flow(&self, event: FlowEvent) {
        self.run.maps.events.borrow_mut()[event as usize] += 1;
    }

    fn count_traffic(&self, _: u32, _: u16, _: u64, _: bool) {}
}

impl Walk for Core<'_> {}

/// A record that a program holds, by its place: whose it is by now, the program does not know.
struct Held<'a> {
    core: &'a Core<'a>,
    place: Place,
}

impl Held<'_> {
    fn read(&self) -> FlowRecord {
        FlowRecord::from_word(self.core.run.maps.flows.at(self.place).get())
    }

    fn write(&self, record: FlowRecord) {
        self.core.run.maps.flows.at(self.place).set(record.to_word());
    }
}

impl FlowCell for Held<'_> {
    fn load(&self) -> FlowRecord {
        self.core.run.pause();
        let record = self.read();
        if self.core.is(Mutant::EpochIgnored) {
            return FlowRecord { epoch: self.core.slot.get().epoch(), ..record };
        }
        record
    }

    fn store(&self, record: FlowRecord) {
        self.core.run.pause();
        self.write(record);
    }

    fn begin(&self, record: FlowRecord) -> bool {
        self.core.run.pause();
        let begins = self.read().backend == 0;
        if begins {
            self.write(record);
        }
        begins
    }

    fn touch(&self, seen: u32) {
        self.core.run.pause();
        self.write(FlowRecord { seen, ..self.read() });
    }

    fn close(&self) {
        self.core.run.pause();
        self.write(FlowRecord { state: lb_abi::flow::CLOSING, ..self.read() });
    }
}
