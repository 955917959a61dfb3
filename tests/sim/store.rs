//! The maps as control writes them. A process dies between two of its writes, or one of them is refused.

use std::{cell::Cell, collections::BTreeMap, io};

use lb::{
    model::BackendId,
    steering::{Error, Lists, NatPlace, NatStore, SlotArray, Store},
};
use lb_abi::{
    backend::{BackendEntry, PRESENT},
    counter::FlowEvent,
    flow::{FlowKey, FlowRecord},
    lengths::Lengths,
    limit::Limits,
    meta::Meta,
    nat::{NatEntry, NatPool},
    quic::{QuicEntry, Server},
    source::{SourceKey, SourceTree},
    vip::{VipEntry, VipKey},
};

use crate::{maps::CORES, mutant::Mutant, run::Run};

type Result<T> = lb::steering::Result<T>;

/// Of one operation.
pub(crate) struct Hand<'a> {
    run: &'a Run,
    /// Calls until the process dies; never, if there is none.
    pub(crate) dies_after: Cell<Option<u32>>,
    /// Calls until one is refused.
    pub(crate) refused_after: Cell<Option<u32>>,
    /// Slots close in one breath, between two looks at `REFUSED_AT`: some 100 us, in which no client answers.
    holds_breath: Cell<bool>,
}

impl<'a> Hand<'a> {
    pub(crate) fn new(run: &'a Run) -> Self {
        let holds_breath = Cell::new(false);
        Self { run, dies_after: Cell::new(None), refused_after: Cell::new(None), holds_breath }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dies_after.get() == Some(0)
    }

    /// Others act; then this call is made, or not.
    fn call(&self) -> Result<()> {
        if self.is_dead() {
            return Err(failure("a dead process"));
        }
        if !self.holds_breath.replace(false) {
            self.run.pause();
        }
        self.dies_after.set(self.dies_after.get().map(|left| left - 1));
        if self.is_dead() {
            return Err(failure("a process that dies"));
        }
        match self.refused_after.get() {
            Some(0) => {
                self.refused_after.set(None);
                Err(failure("a map that refuses"))
            }
            left => {
                self.refused_after.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}

fn failure(what: &str) -> Error {
    Error::Syscall { call: format!("a call of {what}"), source: io::ErrorKind::Interrupted.into() }
}

impl Store for Hand<'_> {
    fn vips(&self) -> Result<BTreeMap<VipKey, VipEntry>> {
        self.call()?;
        Ok(self.run.maps.vips.borrow().iter().map(|(key, entry)| (*key, **entry)).collect())
    }

    fn put_vip(&mut self, key: &VipKey, entry: &VipEntry) -> Result<()> {
        self.call()?;
        self.run.maps.vips.borrow_mut().insert(*key, Box::leak(Box::new(*entry)));
        Ok(())
    }

    fn remove_vip(&mut self, key: &VipKey) -> Result<()> {
        self.call()?;
        self.run.maps.vips.borrow_mut().remove(key);
        Ok(())
    }

    fn backends(&self) -> Result<BTreeMap<BackendId, BackendEntry>> {
        self.call()?;
        let entries =
            (0u16..).map(BackendId).zip(&self.run.maps.backends).map(|(id, entry)| (id, *entry.get()));
        Ok(entries.filter(|(_, entry)| *entry != BackendEntry::default()).collect())
    }

    fn put_backend(&mut self, id: BackendId, entry: &BackendEntry) -> Result<()> {
        self.call()?;
        let place = &self.run.maps.backends[id.index()];
        let old = place.get();
        let leaves = entry.flags & PRESENT == 0 || old.address != entry.address;
        if old.flags & PRESENT != 0
            && leaves
            && self.run.mutant != Some(Mutant::IdsReusedEarly)
            && let Some(name) = self.run.maps.named_by(id, self.run.ticks())
        {
            self.run.fail(format!("backend {id:?} leaves while it is named by {name}"));
        }
        place.set(Box::leak(Box::new(*entry)));
        Ok(())
    }

    fn slots(&self) -> SlotArray<'_> {
        if self.is_dead() {
            return SlotArray::new(&[]);
        }
        if !self.holds_breath.get() {
            self.run.pause();
        }
        SlotArray::new(&self.run.maps.slots)
    }

    fn meta(&self) -> Result<Meta> {
        self.call()?;
        Ok(self.run.maps.meta.get())
    }

    fn put_meta(&mut self, meta: &Meta) -> Result<()> {
        self.call()?;
        self.run.maps.meta.set(*meta);
        Ok(())
    }

    fn admit_sources(&mut self, _: &Lists) -> Result<()> {
        Ok(())
    }

    fn expel_sources(&mut self, _: &Lists) {}

    fn put_lengths(&mut self, _: usize, copy: u8, _: &Lengths) -> Result<u8> {
        Ok(copy)
    }

    // What leads packets beside slots is no operator's here: nothing of it is ever desired.

    fn quic_servers(&self) -> Result<BTreeMap<u16, Server>> {
        Ok(BTreeMap::new())
    }

    fn put_quic_server(&mut self, id: u16, _: Server) -> Result<()> {
        panic!("server id {id} is not desired")
    }

    fn put_quic_vip(&mut self, index: u32, _: &QuicEntry) -> Result<()> {
        panic!("keys of VIP {index} are not desired")
    }

    fn put_limits(&mut self, limits: &Limits) -> Result<()> {
        panic!("{limits:?} are not desired")
    }

    fn sources(&self) -> Result<Vec<(SourceKey, u32)>> {
        Ok(Vec::new())
    }

    fn put_source(&mut self, key: &SourceKey, _: u32) -> Result<()> {
        panic!("{key:?} is not desired")
    }

    fn remove_source(&mut self, key: &SourceKey) -> Result<()> {
        panic!("{key:?} was never there")
    }

    fn put_source_tree(&mut self, set: u32, _: &SourceTree) -> Result<()> {
        panic!("set {set} is not desired")
    }

    fn source_set(&self, _: u32) -> Result<u32> {
        Ok(0)
    }

    fn put_source_set(&mut self, _: u32, set: u32) -> Result<()> {
        panic!("set {set} is not desired")
    }

    fn for_each_flow(&self, each: &mut dyn FnMut(&FlowKey, &FlowRecord)) -> Result<()> {
        self.call()?;
        if self.run.mutant == Some(Mutant::StraysUnseen) {
            return Ok(());
        }
        let flows = &self.run.maps.flows;
        for key in flows.keys() {
            // Time passes while records are read one by one.
            if self.run.rng.one_in(16) {
                self.run.pause();
            }
            let Some(place) = flows.find(&key) else { continue };
            let mut record = FlowRecord::from_word(flows.at(place).get());
            if record.backend == 0 {
                continue;
            }
            if self.run.mutant == Some(Mutant::LiveTakenForEnded) {
                record.seen = record.seen.wrapping_sub(1 << 20);
            }
            each(&key, &record);
        }
        Ok(())
    }

    fn remove_flow(&mut self, key: &FlowKey) -> Result<()> {
        self.call()?;
        if self.run.mutant != Some(Mutant::NothingDeleted) {
            self.run.maps.flows.remove(key);
        }
        Ok(())
    }

    fn inserts_refused(&self) -> Result<u64> {
        self.call()?;
        if self.run.mutant == Some(Mutant::FullUntold) {
            return Ok(0);
        }
        Ok(self.run.maps.events.borrow()[FlowEvent::InsertRefused as usize])
    }

    fn refused_at(&self) -> Result<u32> {
        let is_first = !self.holds_breath.get();
        self.call()?;
        self.holds_breath.set(is_first);
        if self.run.mutant == Some(Mutant::RefusalUntold) {
            return Ok(self.run.ticks().wrapping_sub(1 << 20));
        }
        Ok(self.run.maps.refused_at.get())
    }

    fn reset_vip_traffic(&mut self, _: u32) -> Result<()> {
        self.call()
    }
}

/// Nothing is translated here.
impl NatStore for Hand<'_> {
    fn nat_pools(&self) -> Result<BTreeMap<u32, NatPool>> {
        Ok(BTreeMap::new())
    }

    fn put_nat_pool(&mut self, vip: u32, _: &NatPool) -> Result<()> {
        self.run.fail(format!("sources are dealt out to VIP {vip}"));
        Ok(())
    }

    fn nat_sources(&self) -> Result<Vec<[u8; 16]>> {
        Ok(Vec::new())
    }

    fn put_nat_source(&mut self, index: u32, _: &[u8; 16]) -> Result<()> {
        self.run.fail(format!("place {index} gets a source"));
        Ok(())
    }

    fn nat_cores(&self) -> Result<u32> {
        Ok(CORES as u32)
    }

    fn nat_read(&self, _: &mut NatPlace, _: usize) -> Result<(Vec<(FlowKey, NatEntry)>, bool)> {
        Ok((Vec::new(), true))
    }

    fn nat_read_opening(&self, _: &mut NatPlace, _: usize) -> Result<(Vec<(FlowKey, NatEntry)>, bool)> {
        Ok((Vec::new(), true))
    }

    fn nat_get(&self, _: &FlowKey) -> Result<Option<NatEntry>> {
        Ok(None)
    }

    fn nat_remove(&mut self, _: &FlowKey) -> Result<()> {
        Ok(())
    }
}
