//! An operator's question, put to the loaded programs and the live tables.

use std::sync::Arc;

use aya::{TestRun as _, TestRunOptions};
use lb_abi::{
    bounds::TABLE_LEN,
    names,
    trace::{STEP_SLOT, STEP_VIP_FOUND, Trace, Why},
};

use super::{
    Plane,
    error::{Error, Result},
    frame, loader, netlink,
    regions::Region,
};
use crate::model::Question;

/// What XDP would do with a packet.
#[derive(Clone, Debug)]
pub struct WhyAnswer {
    /// Interface that the packet was said to come in by.
    pub ingress: String,
    /// Each step.
    pub trace: Trace,
    /// Interface that it would leave by.
    pub egress: Option<String>,
    /// VIP it is addressed to.
    pub vip: Option<Arc<str>>,
    /// Pool whose table was read.
    pub pool: Option<Arc<str>>,
    /// Slot in that table.
    pub slot: Option<u32>,
}

impl Plane {
    /// Runs a packet through `lb_why`, which does what `lb_ingress` does with the same maps, but counts, records and
    /// sends nothing. `None`: no interface carries `lb_ingress`.
    ///
    /// # Errors
    /// The question names an interface without `lb_ingress`; a map, or the kernel, refuses.
    pub fn why(&mut self, question: &Question) -> Result<Option<WhyAnswer>> {
        let Some(ingress) = self.way_in(question)? else { return Ok(None) };
        let asked = Why { ingress: netlink::interface_index(&ingress)?, ..Why::default() };
        self.maps.why.set(0, asked, 0).map_err(Error::map(names::MAP_WHY))?;
        let program = loader::xdp(&mut self.object, names::PROGRAM_WHY)?;
        let frame = frame::build(question);
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() };
        program.test_run(options).map_err(|source| Error::Program {
            action: format!("run {} (BPF_PROG_TEST_RUN)", names::PROGRAM_WHY),
            source: Box::new(source),
        })?;
        let trace = self.maps.why.get(&0, 0).map_err(Error::map(names::MAP_WHY))?.trace;
        let has = |step| trace.steps & step != 0;
        let pool = self.sync.regions.get(&Region::of_slot(trace.slot_index)).filter(|_| has(STEP_SLOT));
        Ok(Some(WhyAnswer {
            ingress,
            egress: self.way_out(trace.interface)?,
            vip: self.sync.vip_names.get(&trace.vip.vip).filter(|_| has(STEP_VIP_FOUND)).cloned(),
            pool: pool.cloned(),
            slot: has(STEP_SLOT).then_some(trace.slot_index % TABLE_LEN),
            trace,
        }))
    }

    fn way_in(&self, question: &Question) -> Result<Option<String>> {
        let attached = || self.attached.keys().cloned();
        match &question.interface {
            None => Ok(attached().next()),
            Some(name) if self.attached.contains_key(name) => Ok(Some(name.clone())),
            Some(name) => Err(Error::NotAttached { interface: name.clone(), attached: attached().collect() }),
        }
    }

    fn way_out(&self, index: u32) -> Result<Option<String>> {
        if index == 0 {
            return Ok(None);
        }
        let link = netlink::links()?.into_iter().find(|link| link.index == index);
        Ok(Some(link.map_or_else(|| format!("interface {index}"), |link| link.name)))
    }
}
