//! Maps of translated flows, on the host.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use lb_abi::{
    flow::FlowKey,
    nat::{NatEntry, NatEvent},
};
use lb_ebpf::nat::{NatCell, Refusal, Table};

use crate::xdp::{
    row::NatLeft,
    world::{NAT_FLOWS_LEN, Nat},
};

type Entries = RefCell<Vec<(FlowKey, Rc<Cell<NatEntry>>)>>;

/// Both tables, with bounds of their own: the small one drops its oldest entry, the large one refuses.
pub struct Book {
    opening: Entries,
    flows: Entries,
    bounds: [usize; 2],
    /// By core.
    positions: [Cell<u32>; CORES],
    events: RefCell<Vec<NatEvent>>,
    /// Steps until another core's packet comes in between, and that packet.
    between: RefCell<Option<(usize, Between)>>,
}

/// Cores that may run.
const CORES: usize = 4;

/// What another core does in between.
pub type Between = Box<dyn FnOnce()>;

impl Book {
    /// As the rows have it.
    pub fn new(nat: &Nat) -> Self {
        let entries = |entries: &[(FlowKey, NatEntry)]| {
            RefCell::new(entries.iter().map(|(key, entry)| (*key, Rc::new(Cell::new(*entry)))).collect())
        };
        Self {
            opening: entries(&nat.opening),
            flows: entries(&nat.flows),
            bounds: [usize::MAX, NAT_FLOWS_LEN],
            positions: std::array::from_fn(|_| Cell::new(nat.position)),
            events: RefCell::default(),
            between: RefCell::default(),
        }
    }

    /// With other bounds: of the half-open, and of the established entries.
    pub fn bounds(mut self, opening: usize, flows: usize) -> Self {
        self.bounds = [opening, flows];
        self
    }

    /// Lets another core in before the look-up, insertion or removal that comes after `steps` others.
    pub fn let_in(&self, steps: usize, between: Between) {
        *self.between.borrow_mut() = Some((steps, between));
    }

    /// Whether nobody is waiting to be let in.
    pub fn is_alone(&self) -> bool {
        self.between.borrow().is_none()
    }

    fn step(&self) {
        let due = match &mut *self.between.borrow_mut() {
            Some((0, _)) => true,
            Some((steps, _)) => {
                *steps -= 1;
                false
            }
            None => false,
        };
        if due {
            let between = self.between.borrow_mut().take();
            between.into_iter().for_each(|(_, between)| between());
        }
    }

    fn entries(&self, table: Table) -> (&Entries, usize) {
        match table {
            Table::Opening => (&self.opening, self.bounds[0]),
            Table::Established => (&self.flows, self.bounds[1]),
        }
    }

    /// The entry under a key.
    pub fn get(&self, table: Table, key: &FlowKey) -> Option<HostCell> {
        self.step();
        let entries = self.entries(table).0.borrow();
        entries.iter().find(|(other, _)| other == key).map(|(_, cell)| HostCell(cell.clone()))
    }

    /// As `BPF_NOEXIST` has it.
    ///
    /// # Errors
    /// As in the kernel.
    pub fn insert(&self, table: Table, key: &FlowKey, entry: &NatEntry) -> Result<(), Refusal> {
        self.step();
        let (entries, bound) = self.entries(table);
        let mut entries = entries.borrow_mut();
        if entries.iter().any(|(other, _)| other == key) {
            return Err(Refusal::Taken);
        }
        if entries.len() >= bound {
            match table {
                Table::Opening => _ = entries.remove(0),
                Table::Established => return Err(Refusal::Full),
            }
        }
        entries.push((*key, Rc::new(Cell::new(*entry))));
        Ok(())
    }

    /// One that is not there is no error.
    pub fn remove(&self, table: Table, key: &FlowKey) {
        self.step();
        self.entries(table).0.borrow_mut().retain(|(other, _)| other != key);
    }

    /// The next position of a core's walk.
    pub fn position(&self, core: u32) -> u32 {
        let position = &self.positions[core as usize % CORES];
        position.replace(position.get().wrapping_add(1))
    }

    /// As control removes what has expired; no other core is let in.
    pub fn retain(&self, mut keep: impl FnMut(&FlowKey, &NatEntry) -> bool) {
        self.flows.borrow_mut().retain(|(key, cell)| keep(key, &cell.get()));
    }

    /// Counts.
    pub fn count(&self, event: NatEvent) {
        self.events.borrow_mut().push(event);
    }

    /// What is there now.
    pub fn left(&self) -> NatLeft {
        let list = |entries: &Entries| {
            entries.borrow().iter().map(|(key, cell)| (*key, cell.get())).collect::<Vec<_>>()
        };
        NatLeft {
            opening: list(&self.opening),
            flows: list(&self.flows),
            events: self.events.borrow().clone(),
        }
    }
}

/// An entry that outlives the look-up.
#[derive(Debug)]
pub struct HostCell(Rc<Cell<NatEntry>>);

impl NatCell for HostCell {
    fn read(&self, entry: &mut NatEntry) {
        *entry = self.0.get();
    }

    fn see(&self, now: u32) {
        self.0.set(NatEntry { seen: now, ..self.0.get() });
    }

    fn flag(&self, flags: u32) {
        self.0.set(NatEntry { flags, ..self.0.get() });
    }

    fn expect(&self, number: u32) {
        self.0.set(NatEntry { expected: number, ..self.0.get() });
    }
}
