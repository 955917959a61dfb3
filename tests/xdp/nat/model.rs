//! A box full of flows: clients, one server, four cores, an attacker and control, at random and with time.
//!
//! What is checked is what the ends would notice: nobody ever gets another's packet, a port changes hands only when
//! its flow is over, and a live flow keeps its way. Each run is made from its seed; a failure names it.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use lb_abi::{
    nat::{
        CLOSING_TICKS, FORWARD, NatEntry, OPENING_REUSE_TICKS, RESET_TICKS, TCP_TICKS, UDP_TICKS, idle_ticks,
        is_idle, later,
    },
    reason::Reason,
};
use lb_tests::{
    packet::{ACK, FIN, Packet, RST, SYN},
    xdp::{
        host::{self, Passed},
        nat::Book,
        world::{LB0_MAC, ROUTER_MAC, World},
    },
};

const CORES: u64 = 4;
/// Source ports of each core: clients often want the same.
const PORTS_EACH: u32 = 8;
const CLIENTS: usize = 20;
/// Half-open entries that there is room for.
const OPENING: usize = 40;
const STEPS: usize = 4000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    /// TCP: a SYN went out. UDP: a datagram.
    Asked,
    /// The answer has come.
    Answered,
    /// Established.
    Open,
    /// Both ends are done, or one has reset it.
    Over,
}

struct Client {
    address: String,
    is_tcp: bool,
    stage: Stage,
    /// Source that the server sees, as last seen to leave.
    given: String,
    /// Last packet either way that passed.
    active: u32,
}

struct Sim {
    random: u64,
    world: World,
    nat: Rc<Book>,
    clients: Vec<Client>,
    /// Whose a source is, as the server sees it.
    owners: HashMap<(bool, String), String>,
    opened: u32,
    established: u32,
    exhausted: u32,
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut world = World::new(0xffff_f000).nat(&["10.0.9.1"]);
        world.nat.pool.cores = 64_512 / PORTS_EACH;
        let nat = Rc::new(Book::new(&world.nat).bounds(OPENING, 1 << 20));
        let client = |at: usize| Client {
            address: format!("10.0.1.12:{}", 40_000 + at),
            is_tcp: !at.is_multiple_of(3),
            stage: Stage::Idle,
            given: String::new(),
            active: 0,
        };
        Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            world,
            nat,
            clients: (0..CLIENTS).map(client).collect(),
            owners: HashMap::new(),
            opened: 0,
            established: 0,
            exhausted: 0,
        }
    }

    /// Below `bound`. Xorshift (Marsaglia, 2003).
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % bound
    }

    fn now(&self) -> u32 {
        self.world.now
    }

    fn pass(&mut self, packet: &Packet) -> Passed {
        let core = self.below(CORES) as u32;
        host::pass(&self.world, &self.nat, core, &packet.clone().macs(LB0_MAC, ROUTER_MAC).build())
    }

    /// A packet of a client: checks whose way it leaves by, and says which, if it leaves.
    fn send(&mut self, at: usize, flags: u8) -> Result<String, Reason> {
        let (address, is_tcp) = (self.clients[at].address.clone(), self.clients[at].is_tcp);
        let packet = match is_tcp {
            true => Packet::tcp(&address, "192.0.2.1:80", flags),
            false => Packet::udp(&address, "192.0.2.1:53"),
        };
        let out = self.pass(&packet);
        if out.reason != Reason::Forwarded {
            self.exhausted += u32::from(out.reason == Reason::NatPortsExhausted);
            return Err(out.reason);
        }
        let given = self.taken(is_tcp, &address, &out.frame, !is_tcp || flags == SYN);
        Ok(given)
    }

    /// The server sees a packet; `begins` if it may be a new flow's.
    fn taken(&mut self, is_tcp: bool, client: &str, frame: &[u8], begins: bool) -> String {
        let port = u16::from_be_bytes([frame[34], frame[35]]);
        let given = format!("10.0.9.1:{port}");
        if let Some(owner) = self.owners.get(&(is_tcp, given.clone()))
            && owner != client
        {
            assert!(begins, "{given} is {}'s, and a packet of {client} left by it", owner);
            let holder = self.clients.iter().find(|other| other.address == *owner);
            let is_held = holder.is_some_and(|other| other.given == given && self.is_live(other));
            assert!(!is_held, "{given} was taken from {}, which lives", owner);
        }
        self.owners.insert((is_tcp, given.clone()), client.to_owned());
        given
    }

    /// The server answers whom it sees at a source: it reaches the owner or nobody.
    fn answer(&mut self, is_tcp: bool, given: &str, flags: u8) -> Result<(), Reason> {
        let packet = match is_tcp {
            true => Packet::tcp("10.0.0.11:80", given, flags),
            false => Packet::udp("10.0.0.11:53", given),
        };
        let out = self.pass(&packet);
        if out.reason != Reason::NatReturned {
            assert_eq!(out.reason, Reason::NatUnknown);
            return Err(out.reason);
        }
        let frame = &out.frame;
        let port = u16::from_be_bytes([frame[36], frame[37]]);
        let to = format!("{}.{}.{}.{}:{port}", frame[30], frame[31], frame[32], frame[33]);
        let owner = &self.owners[&(is_tcp, given.to_owned())];
        assert_eq!(to, *owner, "an answer to {given}");
        Ok(())
    }

    /// Whether a flow must go on, both ends agreeing that it lives.
    fn is_live(&self, client: &Client) -> bool {
        let idle = if client.is_tcp { TCP_TICKS } else { UDP_TICKS };
        client.stage == Stage::Open && !is_idle(client.active, self.now(), idle)
    }

    fn act(&mut self, at: usize) {
        let (stage, is_tcp, given) =
            (self.clients[at].stage, self.clients[at].is_tcp, self.clients[at].given.clone());
        let dice = self.below(10);
        match stage {
            Stage::Idle | Stage::Over => self.begin(at),
            Stage::Asked if dice < 2 => self.begin(at),
            Stage::Asked if dice < 3 => self.clients[at].stage = Stage::Idle,
            Stage::Asked => {
                if self.answer(is_tcp, &given, SYN | ACK).is_ok() {
                    self.clients[at].stage = Stage::Answered;
                }
            }
            Stage::Answered => match self.send(at, ACK) {
                // For UDP it may have been forgotten, and have begun anew.
                Ok(now_given) if now_given == given && self.has_entry(&given, is_tcp) => {
                    self.enter(at, Stage::Open);
                    self.established += 1;
                }
                Ok(now_given) => {
                    assert!(!is_tcp, "an ACK went through and established nothing");
                    self.clients[at].given = now_given;
                    self.enter(at, Stage::Asked);
                }
                Err(reason) => {
                    assert!(matches!(reason, Reason::NatUnknown | Reason::NatPortsExhausted), "{reason:?}");
                    self.clients[at].stage = Stage::Idle;
                }
            },
            Stage::Open if !self.is_live(&self.clients[at]) => self.clients[at].stage = Stage::Idle,
            Stage::Open => self.talk(at, dice),
        }
    }

    fn enter(&mut self, at: usize, stage: Stage) {
        let now = self.now();
        (self.clients[at].stage, self.clients[at].active) = (stage, now);
    }

    /// Whether a source is among the established ones.
    fn has_entry(&self, given: &str, is_tcp: bool) -> bool {
        let protocol = if is_tcp { 6 } else { 17 };
        self.nat.left().flows.iter().any(|(key, entry)| {
            entry.flags & FORWARD != 0
                && key.protocol == protocol
                && format!("10.0.9.1:{}", entry.source_port.host()) == given
        })
    }

    fn begin(&mut self, at: usize) {
        match self.send(at, SYN) {
            Ok(given) => {
                self.clients[at].given = given;
                self.opened += 1;
                self.enter(at, Stage::Asked);
            }
            Err(reason) => assert_eq!(reason, Reason::NatPortsExhausted),
        }
    }

    /// A live flow goes its way, whatever else happens.
    fn talk(&mut self, at: usize, dice: u64) {
        let (is_tcp, given) = (self.clients[at].is_tcp, self.clients[at].given.clone());
        match dice {
            0 if is_tcp => {
                assert_eq!(self.send(at, FIN | ACK), Ok(given.clone()));
                assert_eq!(self.answer(is_tcp, &given, FIN | ACK), Ok(()));
                self.clients[at].stage = Stage::Over;
            }
            1 if is_tcp => {
                assert_eq!(self.answer(is_tcp, &given, RST | ACK), Ok(()));
                self.clients[at].stage = Stage::Over;
            }
            // It forgot that it was connected: the server is who must tell it.
            2 => {
                assert_eq!(self.send(at, SYN), Ok(given));
                self.enter(at, Stage::Open);
            }
            3..=6 => {
                assert_eq!(self.answer(is_tcp, &given, ACK), Ok(()), "an answer to {given}");
                self.enter(at, Stage::Open);
            }
            _ => {
                assert_eq!(self.send(at, ACK), Ok(given));
                self.enter(at, Stage::Open);
            }
        }
    }

    /// SYNs and datagrams that nobody will follow up, and ACKs that guess.
    fn attack(&mut self) {
        let forged = format!("10.0.1.12:{}", 1 + self.below(30_000));
        let flows = self.nat.left().flows.len();
        let kind = self.below(3);
        let packet = match kind {
            0 => Packet::tcp(&forged, "192.0.2.1:80", SYN),
            1 => Packet::tcp(&forged, "192.0.2.1:80", ACK),
            _ => Packet::udp(&forged, "192.0.2.1:53"),
        };
        let out = self.pass(&packet);
        match out.reason {
            Reason::Forwarded => {
                assert!(kind != 1, "an ACK of no flow went through");
                self.taken(kind == 0, &forged, &out.frame, true);
            }
            Reason::NatPortsExhausted => assert!(kind != 1),
            reason => assert_eq!((reason, kind), (Reason::NatUnknown, 1)),
        }
        assert!(self.nat.left().flows.len() <= flows, "the attacker has grown the established ones");
    }

    /// As control does it.
    fn expire(&self) {
        let (now, all) = (self.now(), self.nat.left().flows);
        let peer_of = |key: &lb_abi::flow::FlowKey, entry: &NatEntry| {
            let peer_key = entry.peer(key.protocol);
            let peer = all.iter().find(|(other, _)| *other == peer_key).map(|(_, peer)| *peer);
            peer.filter(|peer| peer.peer(key.protocol) == *key)
        };
        self.nat.retain(|key, entry| match peer_of(key, entry) {
            Some(peer) => {
                let idle = idle_ticks(key.protocol, [entry.flags, peer.flags]);
                !is_idle(later(entry.seen, peer.seen), now, idle)
            }
            None => !is_idle(entry.seen, now, RESET_TICKS),
        });
    }

    fn wait(&mut self) {
        let ticks = match self.below(200) {
            0 => TCP_TICKS + 20,
            1..=3 => CLOSING_TICKS,
            4..=12 => OPENING_REUSE_TICKS,
            13..=60 => 20,
            _ => 1,
        };
        self.world.now = self.world.now.wrapping_add(ticks);
    }
}

fn run(seed: u64, has_control: bool, is_attacked: bool) -> [u32; 3] {
    let mut sim = Sim::new(seed);
    for _ in 0..STEPS {
        sim.wait();
        if has_control && sim.below(8) == 0 {
            sim.expire();
        }
        if is_attacked && sim.below(4) == 0 {
            sim.attack();
        } else {
            let at = sim.below(CLIENTS as u64) as usize;
            sim.act(at);
        }
    }
    // Long after, nothing is left of anybody.
    sim.world.now = sim.world.now.wrapping_add(TCP_TICKS + 1);
    sim.expire();
    let left = sim.nat.left().flows;
    assert!(left.is_empty(), "{left:?}");
    [sim.opened, sim.established, sim.exhausted]
}

/// Runs seeds, and names the one that fails.
fn all(has_control: bool, is_attacked: bool) -> [u32; 3] {
    let mut sums = [0; 3];
    for seed in 1..=24 {
        let named = RefCell::new(Some(seed));
        struct Name<'a>(&'a RefCell<Option<u64>>);
        impl Drop for Name<'_> {
            fn drop(&mut self) {
                if let Some(seed) = self.0.borrow().filter(|_| std::thread::panicking()) {
                    eprintln!("seed {seed}");
                }
            }
        }
        let _name = Name(&named);
        let counts = run(seed, has_control, is_attacked);
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    sums
}

#[test]
fn flows_keep_their_way() {
    let [opened, established, _] = all(true, false);
    assert!(opened > 5000 && established > 2000, "{opened} opened, {established} established");
}

#[test]
fn flows_keep_their_way_under_attack() {
    let [opened, established, exhausted] = all(true, true);
    assert!(opened > 5000 && established > 1000 && exhausted > 0, "{opened} {established} {exhausted}");
}

/// With the daemon dead, the program itself gives expired ports away.
#[test]
fn flows_keep_their_way_without_control() {
    let [opened, established, _] = all(false, false);
    assert!(opened > 5000 && established > 2000, "{opened} opened, {established} established");
}
