//! Rows on the pure library, over vectors and cells.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::IpAddr,
    rc::Rc,
};

use lb_abi::{
    backend::BackendEntry,
    be::Be16,
    bounds::SYNS_PER_TICK,
    counter::FlowEvent,
    flow::{FlowKey, FlowRecord, Inserts},
    hop::HopEntry,
    link::LinkEntry,
    meta::Meta,
    reason::Reason,
    slot::Slot,
    spread::Spread,
    steer::{STEER_COOKIES, SteerKey},
    vip::{VipEntry, VipKey},
};
use lb_ebpf::{
    cookie::{self, CookieEnv, Syn},
    decap,
    env::{Env, FlowCell, NextHop, Route, Unroutable},
    ingress,
    numbers::Family,
    packet::Frame,
    verdict::Verdict,
};

use crate::xdp::{
    row::{Left, Moved, Program, Result, Row},
    world::{
        BACKENDS, COOKIE, FLOWS_LEN, LB0, LB0_MAC, LB1, LB1_MAC, MTU, OWN, World, address, form, sockets,
    },
};

/// Runs a row.
pub fn run(row: &Row) -> Result {
    // What is not written shows.
    let mut buffer = vec![0xa5; row.headroom];
    buffer.extend(&row.frame);
    let mut packet = Frame::new(&mut buffer, row.headroom, LB0);
    let mock = Mock::new(&row.world);
    let verdict = match row.program {
        Program::Ingress => match ingress::ingress(&mut packet, &mock) {
            Verdict::Cookie => cookie::cookie(&mut packet, &mock),
            verdict => verdict,
        },
        Program::Decap => decap::decap(&mut packet, &mock),
    };
    let frame = packet.bytes().to_vec();
    let mut events = mock.events.into_inner();
    events.sort_by_key(|event| *event as u32);
    let now = row.world.now;
    let records = mock.flows.into_inner().into_iter().map(|(key, cell)| {
        let FlowRecord { backend, epoch, state, seen } = FlowRecord::from_word(cell.get());
        Left { key, backend, epoch, state, fresh: seen >= now }
    });
    let records = records.collect();
    Result {
        verdict,
        frame,
        reasons: mock.reasons.into_inner(),
        events,
        moved: mock.moved.into_inner(),
        records,
    }
}

/// A world that can be asked what the kernel is asked.
struct Mock<'a> {
    world: &'a World,
    flows: RefCell<Vec<(FlowKey, Rc<Cell<u64>>)>>,
    inserts: Cell<Inserts>,
    reasons: RefCell<Vec<Reason>>,
    events: RefCell<Vec<FlowEvent>>,
    moved: RefCell<Vec<Moved>>,
    hops: RefCell<HashMap<u16, HopEntry>>,
    answers_left: Cell<u32>,
    syns: Cell<u32>,
    spread: Spread,
}

impl<'a> Mock<'a> {
    fn new(world: &'a World) -> Self {
        let flows = world.flows.iter().map(|(key, record)| (*key, Rc::new(Cell::new(record.to_word()))));
        Self {
            world,
            flows: RefCell::new(flows.collect()),
            inserts: Cell::new(Inserts { tick: world.now, spent: world.spent }),
            reasons: RefCell::default(),
            events: RefCell::default(),
            moved: RefCell::default(),
            hops: RefCell::default(),
            answers_left: Cell::new(world.answers_left),
            syns: Cell::new(world.syns),
            spread: world.spread_entry(),
        }
    }

    fn denied(&self, source: IpAddr) -> bool {
        self.world.deny.iter().any(|(prefix, bits)| match (prefix, source) {
            (IpAddr::V4(prefix), IpAddr::V4(source)) => {
                (prefix.to_bits() ^ source.to_bits()) >> (32 - bits) == 0
            }
            (IpAddr::V6(prefix), IpAddr::V6(source)) => {
                (prefix.to_bits() ^ source.to_bits()) >> (128 - bits) == 0
            }
            _ => false,
        })
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

impl Env for Mock<'_> {
    fn meta(&self) -> Option<&Meta> {
        Some(&self.world.meta)
    }

    fn denied_v4(&self, source: [u8; 4]) -> bool {
        self.denied(IpAddr::from(source))
    }

    fn denied_v6(&self, source: [u8; 16]) -> bool {
        self.denied(IpAddr::from(source))
    }

    fn vip(&self, key: &VipKey) -> Option<&VipEntry> {
        self.world.vips.iter().find(|(other, _)| other == key).map(|(_, entry)| entry)
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.world.slots.get(index as usize).copied()
    }

    fn backend(&self, id: u16) -> Option<&BackendEntry> {
        // As in an array map: who is not written is there, and zero.
        const NONE: BackendEntry = BackendEntry { address: [0; 16], flags: 0, generation: 0 };
        Some(self.world.backends.iter().find(|(other, _)| *other == id).map_or(&NONE, |(_, entry)| entry))
    }

    fn flow(&self, key: &FlowKey) -> Option<impl FlowCell> {
        let flows = self.flows.borrow();
        flows.iter().find(|(other, _)| other == key).map(|(_, cell)| Record(cell.clone()))
    }

    fn record(&self, key: &FlowKey, record: FlowRecord) -> Option<()> {
        let mut flows = self.flows.borrow_mut();
        let is_there = flows.iter().any(|(other, _)| other == key);
        if is_there || flows.len() >= FLOWS_LEN {
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

    fn is_flooded(&self) -> bool {
        self.syns.update(|syns| syns + 1);
        self.syns.get() > SYNS_PER_TICK
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
