//! Rows on the pure library, over vectors and cells.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
};

use lb_abi::{
    backend::BackendEntry,
    be::Be16,
    bounds::{QUIC_SERVERS_MAX, SYNS_PER_TICK},
    counter::FlowEvent,
    directory::{Bucket, PortRanges, VipSlot},
    flow::{FlowKey, FlowRecord, Inserts},
    hop::HopEntry,
    lengths::{LENGTHS_MAX, Length, Lengths},
    limit::{Allowance, Limits, Meter},
    link::LinkEntry,
    meta::Meta,
    nat::{NatEntry, NatEvent, NatPool},
    quic::{POOLS_MAX, QuicEntry, QuicEvent, Server},
    reason::Reason,
    slot::Slot,
    source::{NODES, SourceKey, SourceTree},
    spread::Spread,
    steer::{STEER_COOKIES, SteerKey},
    tag::FlowTag,
    trace::Trace,
    vip::{VipEntry, VipKey},
};
use lb_ebpf::{
    cookie::{self, CookieEnv, Syn},
    decap,
    env::{AllowanceCell, Env, FlowCell, Words},
    ingress,
    nat::{self, NatEnv, Refusal, Table},
    numbers::Family,
    packet::Frame,
    route::{NextHop, Route, Unroutable},
    verdict::Verdict,
    walk::Walk,
    witness::{self, Kind, Notes, Witness},
};

use crate::xdp::{
    directory::Directory,
    guard::Guard,
    nat::{Book, HostCell},
    row::{Left, Moved, Program, Result, Row},
    world::{BACKENDS, COOKIE, LB0, LB0_MAC, LB1, LB1_MAC, MTU, OWN, World, address, form, sockets},
};

/// Runs a row.
pub fn run(row: &Row) -> Result {
    run_with(row, |packet, mock| match row.program {
        Program::Ingress => through(packet, mock),
        Program::Decap => decap::decap(packet, mock),
    })
}

/// Runs a row of `lb_ingress` before a witness: what came of it, and the witness's notes.
pub fn witnessed<K: Kind>(row: &Row) -> (Result, Trace) {
    let notes = Notepad::default();
    let result = run_with(row, |packet, mock| {
        let verdict = ingress::ingress(packet, &Witness::<_, _, K>::new(mock, &notes));
        assert!(K::LIVE || mock.hops.borrow().is_empty(), "a next hop was kept");
        assert!(K::LIVE || mock.syns.get() == row.world.syns, "a SYN was counted");
        notes.change(|trace| witness::end(trace, verdict, LB0));
        match verdict {
            verdict if K::LIVE => onward(packet, mock, verdict),
            verdict => verdict,
        }
    });
    (result, notes.0.into_inner())
}

#[derive(Default)]
struct Notepad(RefCell<Trace>);

impl Notes for Notepad {
    fn change<R>(&self, edit: impl FnOnce(&mut Trace) -> R) -> R {
        edit(&mut self.0.borrow_mut())
    }
}

fn run_with(row: &Row, program: impl FnOnce(&mut Frame<'_>, &Mock<'_>) -> Verdict) -> Result {
    // What is not written shows.
    let mut buffer = vec![0xa5; row.headroom];
    buffer.extend(&row.frame);
    let mut packet = Frame::new(&mut buffer, row.headroom, LB0);
    let mock = Mock::new(&row.world);
    let verdict = program(&mut packet, &mock);
    let frame = packet.bytes().to_vec();
    let mut events = mock.events.into_inner();
    events.sort_by_key(|event| *event as u32);
    let now = row.world.now;
    let records = mock.flows.into_inner().into_iter().map(|(key, cell)| {
        let FlowRecord { backend, epoch, state, seen } = FlowRecord::from_word(cell.get());
        Left { key, backend, epoch, state, fresh: seen >= now }
    });
    let records = records.collect();
    let nat = mock.nat.left().normal(now);
    let allowances =
        mock.allowances.into_inner().into_iter().map(|(source, cell)| (source, cell.get().level));
    let allowances = allowances.collect();
    Result {
        verdict,
        frame,
        reasons: mock.reasons.into_inner(),
        events,
        quic: mock.quic.into_inner(),
        moved: mock.moved.into_inner(),
        records,
        nat,
        allowances,
    }
}

/// `lb_ingress`, and what it calls.
fn through(packet: &mut Frame<'_>, mock: &Mock<'_>) -> Verdict {
    let verdict = ingress::ingress(packet, mock);
    onward(packet, mock, verdict)
}

/// What it calls, if it does.
fn onward(packet: &mut Frame<'_>, mock: &Mock<'_>, verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Translate => {
            let verdict = nat::nat(packet, mock, &mut nat::Passage::default());
            assert_ne!(verdict, Verdict::Translate, "it calls itself");
            onward(packet, mock, verdict)
        }
        Verdict::Cookie => cookie::cookie(packet, mock),
        verdict => verdict,
    }
}

/// What one packet came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Told to the kernel.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Counted.
    pub reason: Reason,
}

/// Runs one frame through `lb_ingress` on a core, in a world with translated flows that last.
///
/// # Panics
/// Not exactly one reason was counted.
pub fn pass(world: &World, nat: &Rc<Book>, core: u32, frame: &[u8]) -> Passed {
    const HEADROOM: usize = 64;
    let mut buffer = vec![0; HEADROOM];
    buffer.extend(frame);
    let mut packet = Frame::new(&mut buffer, HEADROOM, LB0);
    let mock = Mock { nat: nat.clone(), core, ..Mock::new(world) };
    let verdict = through(&mut packet, &mock);
    let frame = packet.bytes().to_vec();
    let reasons = mock.reasons.into_inner();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    Passed { verdict, frame, reason: reasons[0] }
}

/// A world that can be asked what the kernel is asked.
struct Mock<'a> {
    world: &'a World,
    directory: Directory,
    lengths: Vec<(u32, Lengths)>,
    guard: Guard,
    flows: RefCell<Vec<(FlowKey, Rc<Cell<u64>>)>>,
    inserts: Cell<Inserts>,
    reasons: RefCell<Vec<Reason>>,
    events: RefCell<Vec<FlowEvent>>,
    meter: Cell<Meter>,
    allowances: RefCell<Vec<Kept>>,
    quic: RefCell<Vec<QuicEvent>>,
    moved: RefCell<Vec<Moved>>,
    hops: RefCell<HashMap<u16, HopEntry>>,
    nat: Rc<Book>,
    core: u32,
    answers_left: Cell<u32>,
    syns: Cell<u32>,
    spread: Spread,
}

impl<'a> Mock<'a> {
    fn new(world: &'a World) -> Self {
        let flows = world.flows.iter().map(|(key, record)| (*key, Rc::new(Cell::new(record.to_word()))));
        let allowances = world.allowances.iter().map(|(source, left)| (*source, Rc::new(Cell::new(*left))));
        Self {
            world,
            directory: Directory::of(&world.vips),
            lengths: world.lengths(),
            guard: Guard::of(&world.meta, &world.deny, &world.allow),
            flows: RefCell::new(flows.collect()),
            inserts: Cell::new(Inserts { tick: world.now, spent: world.spent }),
            reasons: RefCell::default(),
            events: RefCell::default(),
            meter: Cell::default(),
            allowances: RefCell::new(allowances.collect()),
            quic: RefCell::default(),
            moved: RefCell::default(),
            hops: RefCell::default(),
            nat: Rc::new(Book::new(&world.nat)),
            core: 0,
            answers_left: Cell::new(world.answers_left),
            syns: Cell::new(world.syns),
            spread: world.spread_entry(),
        }
    }
}

/// A record that outlives the look-up.
struct Record(Rc<Cell<u64>>);

impl FlowCell for Record {
    fn load(&self) -> FlowRecord {
        FlowRecord::from_word(self.0.get())
    }

    fn store(&self, record: FlowRecord) {
        self.0.set(record.to_word());
    }
}

/// A source's allowance.
type Kept = ([u8; 16], Rc<Cell<Allowance>>);

/// An allowance that outlives the look-up.
struct Remaining(Rc<Cell<Allowance>>);

impl AllowanceCell for Remaining {
    fn load(&self) -> Allowance {
        self.0.get()
    }

    fn store(&self, allowance: Allowance) {
        self.0.set(allowance);
    }
}

impl Env for Mock<'_> {
    fn meta(&self) -> Option<&Meta> {
        Some(&self.world.meta)
    }

    fn gates(&self, word: u32) -> u64 {
        self.guard.gates.get(&word).copied().unwrap_or(0)
    }

    fn guard(&self, bucket: u32) -> Option<impl Words> {
        Some(self.guard.buckets.get(&bucket).copied().unwrap_or_default())
    }

    fn lengths(&self, index: u32) -> Option<&Lengths> {
        const NONE: &Lengths = &Lengths { count: 0, pad: 0, items: [Length::new(0); LENGTHS_MAX] };
        let found = self.guard.lengths.iter().chain(&self.lengths).find(|(other, _)| *other == index);
        Some(found.map_or(NONE, |(_, lengths)| lengths))
    }

    fn vip(&self, key: &VipKey) -> Option<&VipEntry> {
        self.world.vips.iter().find(|(other, _)| other == key).map(|(_, entry)| entry)
    }

    fn vip_bucket(&self, bucket: u32) -> Bucket {
        self.directory.buckets.get(&bucket).copied().unwrap_or_default()
    }

    fn vip_ranges(&self, index: u32) -> Option<&PortRanges> {
        if index == 0 { None } else { self.directory.ranges.get(index as usize) }
    }

    fn vip_slot(&self, index: u16) -> Option<&VipSlot> {
        self.directory.slots.get(usize::from(index))
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.world.slots.get(index as usize).copied()
    }

    fn backend(&self, id: u16) -> Option<&BackendEntry> {
        // As in an array map: who is not written is there, and zero.
        const NONE: BackendEntry =
            BackendEntry { address: [0; 16], flags: 0, generation: 0, port: Be16(0), pad: 0 };
        Some(self.world.backends.iter().find(|(other, _)| *other == id).map_or(&NONE, |(_, entry)| entry))
    }

    fn quic(&self, vip: u32) -> Option<&QuicEntry> {
        // As in an array map.
        const NONE: QuicEntry = QuicEntry { keys: [[0; 2]; 8], pools: [0; POOLS_MAX], configs: 0, pad: 0 };
        Some(self.world.quic.iter().find(|(other, _)| *other == vip).map_or(&NONE, |(_, entry)| entry))
    }

    fn server(&self, id: u16) -> Option<Server> {
        let server = self.world.servers.iter().find(|(other, _)| *other == id).map(|(_, server)| *server);
        (u32::from(id) < QUIC_SERVERS_MAX).then(|| server.unwrap_or_default())
    }

    fn count_quic(&self, event: QuicEvent) {
        self.quic.borrow_mut().push(event);
    }

    fn limits(&self) -> Option<&Limits> {
        Some(&self.world.limits)
    }

    fn meter(&self) -> Meter {
        self.meter.get()
    }

    fn keep_meter(&self, meter: Meter) {
        self.meter.set(meter);
    }

    fn allowance(&self, source: &[u8; 16]) -> Option<impl AllowanceCell> {
        let allowances = self.allowances.borrow();
        allowances.iter().find(|(other, _)| other == source).map(|(_, cell)| Remaining(cell.clone()))
    }

    fn keep_allowance(&self, source: &[u8; 16], allowance: Allowance) {
        self.allowances.borrow_mut().push((*source, Rc::new(Cell::new(allowance))));
    }

    fn source_set(&self, vip: u32) -> Option<u32> {
        Some(self.world.sets.iter().find(|(other, _)| *other == vip).map_or(0, |(_, set)| *set))
    }

    fn source_tree(&self, set: u32) -> Option<&SourceTree> {
        const NONE: SourceTree = SourceTree { v6: [0; NODES], v4: [0; NODES], zero: 0 };
        Some(self.world.trees.iter().find(|(other, _)| *other == set).map_or(&NONE, |(_, tree)| tree))
    }

    fn source(&self, key: &SourceKey) -> Option<u32> {
        self.world.sources.iter().find(|(other, _)| other == key).map(|(_, table)| *table)
    }

    fn flow(&self, key: &FlowKey, _: FlowTag) -> Option<impl FlowCell> {
        let flows = self.flows.borrow();
        flows.iter().find(|(other, _)| other == key).map(|(_, cell)| Record(cell.clone()))
    }

    fn record(&self, key: &FlowKey, _: FlowTag, record: FlowRecord) -> Option<()> {
        let mut flows = self.flows.borrow_mut();
        let is_there = flows.iter().any(|(other, _)| other == key);
        if is_there || self.world.crowded.as_ref() == Some(key) {
            return None;
        }
        flows.push((*key, Rc::new(Cell::new(record.to_word()))));
        Some(())
    }

    fn inserts(&self) -> Inserts {
        self.inserts.get()
    }

    fn keep_inserts(&self, inserts: Inserts) {
        self.inserts.set(inserts);
    }

    fn refused_at(&self) -> u32 {
        self.world.refused_at
    }

    fn now_ticks(&self) -> u32 {
        self.world.now
    }

    fn hop(&self, backend: u16) -> Option<HopEntry> {
        self.hops.borrow().get(&backend).copied()
    }

    fn keep_hop(&self, backend: u16, entry: HopEntry) {
        self.hops.borrow_mut().insert(backend, entry);
    }

    fn link(&self, interface: u32) -> Option<&LinkEntry> {
        self.world.links.iter().find(|(index, _)| *index == interface).map(|(_, entry)| entry)
    }

    fn route(&self, ingress: u32, route: &Route) -> std::result::Result<NextHop, Unroutable> {
        assert!([LB0, LB1].contains(&ingress));
        assert_eq!(route.family, route.destination.family());
        let destination = route.destination.bytes();
        let [.., third, _] = destination;
        let local = [[10, 0, 0], [10, 0, 1]].contains(&[destination[12], destination[13], third])
            || destination.starts_with(&[0xfd]);
        if !local {
            return Err(Unroutable::NoRoute);
        }
        if route.length > MTU {
            return Err(Unroutable::TooLong { mtu: MTU });
        }
        let backend = BACKENDS.iter().find(|backend| address(backend.address) == destination);
        let (mac, interface) =
            backend.and_then(|backend| backend.neighbour).ok_or(Unroutable::NoNeighbour)?;
        let own = match interface {
            LB0 => LB0_MAC,
            LB1 => LB1_MAC,
            _ => return Err(Unroutable::NoRoute),
        };
        let bytes = [mac, own].concat();
        let addresses = std::array::from_fn(|at| u16::from_ne_bytes([bytes[2 * at], bytes[2 * at + 1]]));
        Ok(NextHop { interface, addresses, tags: [0; 2], mtu: MTU })
    }

    fn may_answer(&self) -> bool {
        let left = self.answers_left.get().checked_sub(1);
        left.is_some_and(|left| {
            self.answers_left.set(left);
            true
        })
    }

    fn count_syn(&self) -> bool {
        let is_flooded = self.is_flooded();
        self.syns.update(|syns| syns + 1);
        is_flooded
    }

    fn is_flooded(&self) -> bool {
        self.syns.get() >= SYNS_PER_TICK
    }

    fn spread(&self) -> Option<&Spread> {
        Some(&self.spread)
    }

    fn is_spread(&self, port: Be16) -> bool {
        sockets().iter().any(|socket| socket.port() == port.host())
    }

    fn core_of(&self, worker: u32) -> Option<u32> {
        self.world.cores.get(worker as usize).copied()
    }

    fn move_to(&self, core: u32) -> bool {
        assert_eq!(core, 1, "it is here already, or there is no such core");
        true
    }

    fn count(&self, reason: Reason) {
        self.reasons.borrow_mut().push(reason);
    }

    fn count_flow(&self, event: FlowEvent) {
        self.events.borrow_mut().push(event);
    }

    fn count_traffic(&self, vip: u32, backend: u16, bytes: u64, new_flow: bool) {
        self.moved.borrow_mut().push(Moved { vip, backend, bytes, new_flows: u64::from(new_flow) });
    }
}

impl Walk for Mock<'_> {}

impl NatEnv for Mock<'_> {
    type Cell = HostCell;

    fn nat(&self, table: Table, key: &FlowKey) -> Option<HostCell> {
        self.nat.get(table, key)
    }

    fn nat_insert(&self, table: Table, key: &FlowKey, entry: &NatEntry) -> std::result::Result<(), Refusal> {
        self.nat.insert(table, key, entry)
    }

    fn nat_remove(&self, table: Table, key: &FlowKey) {
        self.nat.remove(table, key);
    }

    fn nat_pool(&self, _: u32) -> Option<NatPool> {
        Some(self.world.nat.pool)
    }

    fn nat_source(&self, index: u32) -> Option<[u8; 16]> {
        // As in an array map: who is not written is there, and zero.
        Some(self.world.nat.sources.get(index as usize).copied().unwrap_or_default())
    }

    fn nat_position(&self) -> (u32, u32) {
        (self.core, self.nat.position(self.core))
    }

    fn count_nat(&self, event: NatEvent) {
        self.nat.count(event);
    }
}

impl CookieEnv for Mock<'_> {
    fn cookie(&self, syn: &Syn) -> Option<u32> {
        assert!((20..=60).contains(&syn.header_len) && syn.header_len.is_multiple_of(4));
        let (destination, port) = (syn.ip.destination.bytes(), syn.ports.destination.host());
        // As the kernel looks for them: whoever is bound to the address itself comes first.
        let bound = sockets().into_iter().find(|bound| {
            let is_all = bound.ip().is_unspecified() && bound.is_ipv4() == (syn.ip.family == Family::V4);
            bound.port() == port && (form(bound.ip()) == destination || is_all)
        })?;
        let key = SteerKey { address: form(bound.ip()), port: Be16::new(port), protocol: 6, pad: 0 };
        let (_, entry) = self.world.listeners.iter().find(|(other, _)| *other == key)?;
        let is_local = OWN.iter().any(|own| address(own) == destination);
        (entry.flags & STEER_COOKIES != 0 && is_local).then_some(COOKIE)
    }

    fn mtu(&self) -> u16 {
        MTU
    }
}
