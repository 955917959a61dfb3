//! Clients, the network in front of the balancer, and the judge: what a flow may count on.
//!
//! A client's TCP begins with a SYN, repeated until it is answered; the backend whose answer comes first is the
//! connection's. Packets are delayed, doubled and overtake each other, and come by any core. Somebody else forges
//! SYNs, of these flows and of ones that do not exist.

use std::{
    cell::{Cell, RefCell},
    net::Ipv4Addr,
};

use lb_abi::{
    be::Be16,
    flow::{CLOSING, FlowKey},
    reason::Reason,
    slot::Phase,
};
use lb_ebpf::select::Stage;

use crate::{
    cores::{self, Fate},
    maps::CORES,
    operator::{FLOWLESS, IDLE_TCP_MS, IDLE_UDP_MS, VIP_ONE, VIP_TWO},
    rng::Rng,
    run::{Event, Run},
};

/// A connection's port is not used again before its last packets are gone.
const LINGER_MS: u64 = 3_000;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// On its way to the balancer.
pub(crate) struct Packet {
    client: usize,
    /// Of the client's connections; packets of older ones are not judged.
    connection: u32,
    key: FlowKey,
    stage: Stage,
    core: usize,
    is_forged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// So many SYNs were sent.
    Opening(u32),
    Open,
    /// A FIN was sent; some last packet may follow.
    Closing,
}

#[derive(Debug)]
struct Client {
    vip: u8,
    destination_port: u16,
    protocol: u8,
    port: u16,
    connection: u32,
    state: State,
    core: usize,
    /// Where the next packet may go: one backend as a rule. Empty: anywhere.
    homes: Vec<u64>,
    /// When the last packet of this connection arrived.
    heard_at_ms: u64,
    /// The same, as a moment.
    heard_at: u64,
    /// Packets of it that are under way in programs now.
    under_way: u32,
    /// Some of those overlapped, so each may have met another state of the world.
    overlaps: bool,
}

/// What a run was made of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) judged: u64,
    pub(crate) dropped: u64,
    /// SYNs of one connection that met two backends.
    pub(crate) straddled: u64,
    /// Flows that a forged or late SYN made a new one, where nothing was recorded of them.
    pub(crate) exposed: u64,
    /// Flows whose backend had been down.
    pub(crate) repicked: u64,
}

pub(crate) struct Clients {
    all: RefCell<Vec<Client>>,
    pub(crate) traffic: Cell<Traffic>,
}

impl Clients {
    pub(crate) fn new(rng: &Rng) -> Self {
        let client = |at: u16| {
            let (vip, destination_port, protocol) = match at % 8 {
                0..=3 => (VIP_ONE, 80, TCP),
                4 | 5 => (VIP_ONE, 443, UDP),
                6 => (VIP_TWO, 443, UDP),
                _ => (FLOWLESS, 53, UDP),
            };
            Client {
                vip,
                destination_port,
                protocol,
                port: 1000 + at,
                connection: 0,
                state: State::Idle,
                core: rng.within(0, CORES as u64) as usize,
                homes: Vec::new(),
                heard_at_ms: 0,
                heard_at: 0,
                under_way: 0,
                overlaps: false,
            }
        };
        Self { all: RefCell::new((0..160).map(client).collect()), traffic: Cell::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.borrow().len()
    }

    fn count(&self, add: impl FnOnce(&mut Traffic)) {
        let mut traffic = self.traffic.get();
        add(&mut traffic);
        self.traffic.set(traffic);
    }

    /// Sends a packet of a client's connection.
    fn send(&self, run: &Run, at: usize, stage: Stage) {
        let rng = &run.rng;
        let mut all = self.all.borrow_mut();
        let client = &mut all[at];
        if rng.one_in(40) {
            client.core = rng.within(0, CORES as u64) as usize;
        }
        let copies = if rng.one_in(25) { 2 } else { 1 };
        for _ in 0..copies {
            let delay_ms = match rng.within(0, 20) {
                0 => rng.within(0, 1500),
                1..=3 => rng.within(0, 150),
                _ => rng.within(1, 8),
            };
            let packet = Packet {
                client: at,
                connection: client.connection,
                key: client.key(),
                stage,
                core: if rng.one_in(30) { rng.within(0, CORES as u64) as usize } else { client.core },
                is_forged: false,
            };
            run.after(delay_ms, Event::Packet(packet));
        }
    }

    /// The client's turn.
    pub(crate) fn act(&self, run: &Run, at: usize) {
        if !run.is_busy() {
            return;
        }
        let rng = &run.rng;
        let (state, protocol) = {
            let all = self.all.borrow();
            (all[at].state, all[at].protocol)
        };
        let set = |state| self.all.borrow_mut()[at].state = state;
        let (stages, then_ms): (&[Stage], u64) = match state {
            _ if protocol == UDP => (&[Stage::Datagram], gap_ms(rng, IDLE_UDP_MS)),
            State::Idle => {
                self.all.borrow_mut()[at].begin(run);
                set(State::Opening(1));
                (&[Stage::Opening], 1000)
            }
            State::Opening(6) => {
                set(State::Idle);
                (&[], LINGER_MS)
            }
            State::Opening(sent) => {
                set(State::Opening(sent + 1));
                (&[Stage::Opening], 1000 << sent)
            }
            State::Open => match rng.within(0, 24) {
                0 => {
                    set(State::Closing);
                    (&[Stage::Closing], rng.within(1, 4000))
                }
                1 => {
                    set(State::Idle);
                    (&[Stage::Closing], LINGER_MS + rng.within(0, 9000))
                }
                2..=9 => (&[Stage::Running; 3], gap_ms(rng, IDLE_TCP_MS)),
                _ => (&[Stage::Running], gap_ms(rng, IDLE_TCP_MS)),
            },
            State::Closing => {
                set(State::Idle);
                (&[Stage::Running], LINGER_MS + rng.within(0, 9000))
            }
        };
        stages.iter().for_each(|stage| self.send(run, at, *stage));
        run.after(then_ms, Event::Client(at));
    }

    /// A SYN-ACK. The first one opens the connection; its ACK goes out at once.
    pub(crate) fn hear(&self, run: &Run, at: usize, connection: u32, from: u64) {
        let mut all = self.all.borrow_mut();
        let client = &mut all[at];
        if client.connection != connection || !matches!(client.state, State::Opening(_)) {
            return;
        }
        client.state = State::Open;
        if client.homes.len() > 1 {
            self.count(|traffic| traffic.straddled += 1);
        }
        if !client.homes.contains(&from) {
            client.homes.push(from);
        }
        drop(all);
        self.send(run, at, Stage::Running);
    }

    /// Somebody who can write any source address.
    pub(crate) fn forge(&self, run: &Run) {
        if !run.is_changing() {
            return;
        }
        let rng = &run.rng;
        let count = rng.pick(&[1, 3, 10, 100, 400]);
        for _ in 0..count {
            let at = rng.within(0, self.len() as u64) as usize;
            let client = &self.all.borrow()[at];
            let (mut key, is_stranger) = (client.key(), count > 10);
            if is_stranger {
                key.source[..4].copy_from_slice(&(rng.word() as u32).to_ne_bytes());
            }
            let stage = match client.protocol {
                UDP if is_stranger => Stage::Datagram,
                UDP => continue,
                // What an attacker sends blindly: SYNs, and segments of no connection.
                _ if is_stranger && rng.one_in(2) => Stage::Running,
                _ => Stage::Opening,
            };
            let packet = Packet {
                client: at,
                connection: if is_stranger { u32::MAX } else { client.connection },
                key,
                stage,
                core: rng.within(0, CORES as u64) as usize,
                is_forged: true,
            };
            run.after(rng.within(0, 2000), Event::Packet(packet));
        }
        run.after(rng.within(500, 12_000), Event::Forgery);
    }

    /// A packet arrives: forwarded, and judged.
    pub(crate) fn arrive(&self, run: &Run, packet: &Packet) {
        let is_judged = {
            let mut all = self.all.borrow_mut();
            let client = &mut all[packet.client];
            let is_judged = client.connection == packet.connection && client.vip != FLOWLESS;
            if is_judged {
                client.under_way += 1;
                client.overlaps |= client.under_way > 1;
            }
            is_judged
        };
        let (began_ms, began, changes) = (run.now_ms(), run.moment(), run.operator.changes());
        let live = run.maps.live(&packet.key, run.ticks());
        let is_moving = run.maps.slot_of(&packet.key).is_some_and(|(slot, _)| slot.phase() != Phase::Settled);
        let fate = cores::forward(run, packet.core, &packet.key, packet.stage);
        // An odd number: a change was under way.
        let is_calm = changes.is_multiple_of(2) && changes == run.operator.changes();
        if let Fate::Dropped(reason) = fate {
            self.count(|traffic| traffic.dropped += 1);
            if is_calm && run.operator.serves_surely(run, packet.key.destination[15]) {
                run.fail(format!(
                    "{:?} is dropped, {}, while a backend is up",
                    packet.key,
                    Reason::name(reason)
                ));
            }
        }
        if !is_judged {
            return;
        }
        let mut all = self.all.borrow_mut();
        let client = &mut all[packet.client];
        if client.connection != packet.connection {
            return;
        }
        client.under_way -= 1;
        if let Fate::Sent(choice) = fate {
            let to = u64::from(choice.id) | u64::from(choice.generation) << 32;
            self.count(|traffic| traffic.judged += 1);
            if packet.stage == Stage::Opening {
                let is_known = client.state == State::Open || client.state == State::Closing;
                if is_known && !client.may_go(run, began_ms, to) {
                    let is_followed = live.is_some_and(|record| record.state & CLOSING == 0);
                    if is_calm && !client.overlaps && (is_followed || !is_moving) {
                        run.fail(format!("a SYN re-homes {client:?} to {to:#x}, with record {live:?}"));
                    }
                    self.count(|traffic| traffic.exposed += 1);
                }
                client.add(to);
                if !packet.is_forged && run.operator.answers(run, choice.id) {
                    let event = Event::Answer(packet.client, packet.connection, to);
                    // Longer than anything pauses: an answer is later than what led to it.
                    run.after(run.rng.within(450, 700), event);
                }
            } else if client.overlaps {
                client.add(to);
            } else {
                self.judge(run, client, packet, to, began_ms);
            }
            // What ends a flow begins no record: where it has none, the slot has not heard of it.
            let is_remembered = !is_moving || live.is_some() || packet.stage.records();
            if is_remembered {
                client.heard_at_ms = began_ms;
                client.heard_at = began;
            }
        }
        if client.under_way == 0 {
            client.overlaps = false;
        }
    }

    /// A packet in the middle of a connection, or a datagram.
    fn judge(&self, run: &Run, client: &mut Client, packet: &Packet, to: u64, began_ms: u64) {
        if !client.may_go(run, began_ms, to) {
            let slot = run.maps.slot_of(&packet.key).map(|(slot, _)| (slot, slot.phase(), slot.epoch()));
            run.fail(format!(
                "{:?} goes to {to:#x}: {client:?}, slot {slot:x?}, record {:x?}, after {} ms",
                packet.stage,
                run.maps.live(&packet.key, run.ticks()),
                began_ms - client.heard_at_ms,
            ));
        }
        if !client.homes.is_empty() && !client.homes.contains(&to) {
            self.count(|traffic| traffic.repicked += 1);
        }
        client.homes = vec![to];
    }
}

impl Client {
    fn key(&self) -> FlowKey {
        let form = |v4: [u8; 4]| Ipv4Addr::from(v4).to_ipv6_mapped().octets();
        FlowKey {
            source: form([198, 51, 100, 1]),
            destination: form([192, 0, 2, self.vip]),
            source_port: Be16::new(self.port),
            destination_port: Be16::new(self.destination_port),
            protocol: self.protocol,
            pad: [0; 3],
        }
    }

    fn begin(&mut self, run: &Run) {
        self.connection += 1;
        if run.rng.one_in(2) {
            self.port = self.port.wrapping_add(1000);
        }
        self.homes.clear();
        (self.under_way, self.overlaps) = (0, false);
        self.heard_at_ms = run.now_ms();
    }

    fn add(&mut self, home: u64) {
        if !self.homes.contains(&home) {
            self.homes.push(home);
        }
    }

    /// Whether a packet that arrived at `now_ms` may go to a backend.
    fn may_go(&self, run: &Run, now_ms: u64, to: u64) -> bool {
        let idle_ms = if self.protocol == TCP { IDLE_TCP_MS } else { IDLE_UDP_MS };
        self.homes.is_empty()
            || self.homes.contains(&to)
            || now_ms - self.heard_at_ms > idle_ms
            || run.operator.vip_was_away(self.vip, self.heard_at)
            || self.homes.iter().any(|home| run.operator.was_in_trouble(*home as u16, self.heard_at))
    }
}

/// Until a client's next packet: mostly soon, now and then just within the idle time, or beyond it.
fn gap_ms(rng: &Rng, idle_ms: u64) -> u64 {
    match rng.within(0, 40) {
        0 => rng.within(idle_ms, 2 * idle_ms),
        1..=6 => rng.within(idle_ms / 2, idle_ms),
        7..=16 => rng.within(idle_ms / 20, idle_ms / 2),
        _ => rng.within(0, idle_ms / 20),
    }
}
