//! Frames through the packet path of the host, whole: `lb_ingress` with what it hands on to `lb_nat`, and `lb_decap`.
//!
//! ```text
//! input = row (2 bytes, little-endian) world (1 byte) room (1 byte) frame
//! ```
//! The world is that of one of the packet rows, and by its byte changed: the low half makes one backend the owner of
//! every slot, the high half says how VIPs forward or that their slots are moving. `room`: bytes in front of the frame
//! (bits 0 and 1), checksums made right beforehand (bit 2).

use std::{rc::Rc, sync::OnceLock};

use lb_abi::{
    reason::{Fate, Reason},
    slot::Phase,
    trace::{STEP_VIP_FOUND, Trace},
    vip::{DECAP, FORWARD_GUE, FORWARD_IPIP, FORWARD_L2DSR},
};
use lb_ebpf::{
    capture::Sight,
    packet::Frame,
    verdict::Verdict,
    witness::{Dry, Live},
};
use lb_tests::{
    checksums,
    xdp::{
        host,
        nat::Book,
        row::{Program, Result, Row},
        rows, told,
        world::{BACKENDS, LB0, NEAR, NEAR_V6, NOBODY, OTHER, World},
    },
};

use super::Target;

/// See the module.
pub const TARGET: Target = Target { name: "packet", run, seeds, words };

/// As in the rows' own test.
const NOW: u32 = 0x0200_0010;
const SEALED: u8 = 4;

fn all() -> &'static [Row] {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(|| [rows::all(NOW), rows::too_big(NOW)].concat())
}

fn run(input: &[u8]) {
    let Some((&[low, high, twist, room], frame)) = input.split_first_chunk() else { return };
    let of = &all()[usize::from(u16::from_le_bytes([low, high])) % all().len()];
    let mut frame = frame.to_vec();
    if room & SEALED != 0 {
        checksums::seal(&mut frame);
    }
    let headroom = [128, 0, 20, 48][usize::from(room & 3)];
    let row = Row { headroom, frame, world: world(&of.world, twist), ..of.clone() };
    let result = host::run(&row);
    Judged { row: &row, result: &result }.check();
    let mut bytes = row.frame.clone();
    let len = bytes.len();
    assert!(Sight::of(&Frame::new(&mut bytes, 0, LB0)).headers <= len);
    if row.program == Program::Ingress {
        let trace = witnesses(&row, &result);
        ways_back(&row, &result, &trace);
    }
}

fn world(of: &World, twist: u8) -> World {
    let world = of.clone();
    let world = match twist & 15 {
        low @ 1..=8 => world.owner(BACKENDS[usize::from(low) - 1].id),
        9 => world.owner(NOBODY),
        10 => World { answers_left: 0, ..world },
        _ => world,
    };
    match twist >> 4 {
        1 => world.forward(FORWARD_IPIP),
        2 => world.forward(FORWARD_GUE),
        3 => world.forward(FORWARD_L2DSR),
        4 => world.nat(&["10.0.9.1", "10.0.9.2"]).owner(NEAR.id),
        5 => world.nat(&["fd00:9::1"]).owner(NEAR_V6.id).port(NEAR_V6.id, 8080),
        6 => world.moving(OTHER.id, NEAR.id, Phase::Open, 3),
        7 => world.moving(NEAR.id, OTHER.id, Phase::Closed, 3),
        8 => world.wide("192.0.2.0", 8, [1000, 2000], 6, FORWARD_IPIP),
        9 => world.varied(0xff, 0xffff),
        _ => world,
    }
}

/// What one frame came to.
struct Judged<'a> {
    row: &'a Row,
    result: &'a Result,
}

impl Judged<'_> {
    fn say(&self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let Self { row, result } = self;
        format!(
            "\n{}: {:?} {:?}\nin  {}\nout {}\n{:?}\n{:?}",
            row.name,
            result.verdict,
            result.reasons,
            hex(&row.frame),
            hex(&result.frame),
            checksums::states(&row.frame),
            checksums::states(&result.frame),
        )
    }

    fn check(&self) {
        let Self { row, result } = self;
        let [reason] = result.reasons[..] else { panic!("not one reason{}", self.say()) };
        let (before, after) = (&row.frame, &result.frame);
        let is_fitting = match (reason.fate(), result.verdict) {
            (Fate::Pass, Verdict::Pass) | (Fate::Drop, Verdict::Drop) | (Fate::Answer, Verdict::Transmit) => {
                true
            }
            (Fate::Pass, Verdict::Moved) => reason == Reason::Spread,
            // Without a next hop the kernel takes what was translated further.
            (Fate::Forward, Verdict::Pass) => row.world.nat.pool.count > 0,
            (Fate::Forward, Verdict::Transmit | Verdict::Redirect { .. }) => true,
            _ => false,
        };
        assert!(is_fitting, "the verdict is not the reason's{}", self.say());
        match reason {
            Reason::Forwarded | Reason::NatReturned | Reason::NatError | Reason::Echo => self.stays_right(),
            Reason::TooBig => {
                let link = checksums::ip_at(before).unwrap_or_default();
                assert!(after.len() <= link + 1280, "too long an error{}", self.say());
                // What is quoted is cut, so the error's own are all that can be found besides the quoted header's.
                assert!(!checksums::are_right(before) || checksums::are_right(after), "{}", self.say());
            }
            Reason::Decapsulated => {
                assert!(after.len() < before.len(), "{}", self.say());
                assert!(!checksums::are_right(before) || checksums::are_right(after), "{}", self.say());
            }
            _ if result.verdict == Verdict::Pass => assert!(before == after, "not untouched{}", self.say()),
            _ => {}
        }
        assert_eq!(
            reason == Reason::Forwarded || reason == Reason::Local,
            result.moved.len() == 1,
            "{}",
            self.say()
        );
    }

    /// Checksums are as right as they were; what is new is right if what it covers is.
    fn stays_right(&self) {
        let (before, after) =
            (checksums::are_right(&self.row.frame), checksums::are_right(&self.result.frame));
        assert_eq!(before, after, "checksums{}", self.say());
    }
}

/// A live witness changes nothing, a dry one leaves nothing behind, and both tell the truth.
fn witnesses(row: &Row, result: &Result) -> Trace {
    let (seen, live) = host::witnessed::<Live>(row);
    assert_eq!(seen, *result, "a live witness changes the walk");
    let told = Row { expected: result.clone(), ..row.clone() };
    told::check(&told, &live).unwrap_or_else(|why| panic!("live: {why}"));
    let (untouched, dry) = host::witnessed::<Dry>(row);
    assert!(untouched.reasons.is_empty() && untouched.events.is_empty() && untouched.moved.is_empty());
    assert_eq!(untouched.records.len(), row.world.flows.len());
    if !told::depends_on_room(&told) {
        told::check(&told, &dry).unwrap_or_else(|why| panic!("dry: {why}"));
    }
    live
}

/// What was put on comes off at the backend, and what was translated is translated back.
fn ways_back(row: &Row, result: &Result, trace: &Trace) {
    let judged = Judged { row, result };
    if result.reasons != [Reason::Forwarded] {
        return;
    }
    let flags = if trace.steps & STEP_VIP_FOUND == 0 { 0 } else { trace.vip.flags };
    if flags & (FORWARD_IPIP | FORWARD_GUE | FORWARD_L2DSR) == 0 {
        return translated_back(row, result);
    }
    let front = match flags & (FORWARD_IPIP | FORWARD_GUE) {
        0 => 0,
        FORWARD_IPIP => 40,
        _ => 48,
    };
    let tags = if row.world.links.is_empty() { 0 } else { 8 };
    assert!(result.frame.len() <= row.frame.len() + front + tags, "too long{}", judged.say());
    let (Some(from), Some(to)) = (checksums::ip_at(&row.frame), checksums::ip_at(&result.frame)) else {
        panic!("no IP{}", judged.say());
    };
    let aged = aged(&row.frame[from..]);
    if front == 0 {
        assert!(result.frame[to..] == aged[..], "not the packet itself{}", judged.say());
        return;
    }
    let backend = BACKENDS.iter().find(|backend| backend.id == result.moved[0].backend).expect("a backend");
    let world = World::new(NOW).vip(backend.address, 0, 4, DECAP).vip(backend.address, 0, 41, DECAP).vip(
        backend.address,
        6080,
        17,
        DECAP,
    );
    let there = Row { program: Program::Decap, frame: result.frame.clone(), world, ..row.clone() };
    let there_result = host::run(&there);
    assert_eq!(there_result.reasons, [Reason::Decapsulated], "{}", judged.say());
    let at = checksums::ip_at(&there_result.frame).expect("IP");
    assert!(
        there_result.frame[at..] == aged[..],
        "not the packet{}",
        Judged { row: &there, result: &there_result }.say()
    );
}

/// An IP packet one hop on, its checksum by the book if it was right.
fn aged(packet: &[u8]) -> Vec<u8> {
    let mut aged = packet.to_vec();
    if packet[0] >> 4 == 6 {
        aged[7] -= 1;
        return aged;
    }
    aged[8] -= 1;
    // RFC 1624, eqn. 3, in the plainest way: the word that holds the TTL goes down by 0x100.
    let sum = u32::from(!u16::from_be_bytes([packet[10], packet[11]])) + 0xffff - 0x100;
    let sum = (sum & 0xffff) + (sum >> 16);
    let check = !(((sum & 0xffff) + (sum >> 16)) as u16);
    aged[10..12].copy_from_slice(&check.to_be_bytes());
    aged
}

/// The backend's answer reaches the client as from the VIP.
fn translated_back(row: &Row, result: &Result) {
    let nat = Rc::new(Book::new(&row.world.nat));
    let passed = host::pass(&row.world, &nat, 0, &row.frame);
    assert_eq!((passed.reason, &passed.frame), (Reason::Forwarded, &result.frame), "{}", row.name);
    let reply = turned(&result.frame);
    let back = host::pass(&row.world, &nat, 0, &reply);
    if back.verdict == Verdict::Drop {
        // The way back is its own: no route to the client, too long for it, or a TTL that has run out.
        assert!(
            matches!(back.reason, Reason::NoRoute | Reason::Ttl | Reason::Mtu | Reason::NatUnknown),
            "{back:?}"
        );
        return;
    }
    if back.reason != Reason::NatReturned {
        assert_eq!(back.reason, Reason::TooBig);
        return;
    }
    assert_eq!(ends(&turned(&back.frame)), ends(&row.frame), "{}", Judged { row, result }.say());
    assert_eq!(
        checksums::are_right(&back.frame),
        checksums::are_right(&row.frame),
        "{}",
        Judged { row, result }.say()
    );
}

/// Addresses and ports, from the source address on; and where they lie.
fn ends(frame: &[u8]) -> Vec<u8> {
    let at = checksums::ip_at(frame).expect("IP");
    let (first, size) = if frame[at] >> 4 == 4 { (at + 12, 4) } else { (at + 8, 16) };
    frame[first..first + 2 * size + 4].to_vec()
}

/// The same packet the other way, to nobody's group: no checksum changes.
fn turned(frame: &[u8]) -> Vec<u8> {
    let mut turned = frame.to_vec();
    let at = checksums::ip_at(frame).expect("IP");
    let (first, size) = if frame[at] >> 4 == 4 { (at + 12, 4) } else { (at + 8, 16) };
    let mut swap = |at: usize, size: usize| {
        turned[at..at + 2 * size].rotate_left(size);
    };
    swap(0, 6);
    swap(first, size);
    swap(first + 2 * size, 2);
    turned[0] &= !1;
    turned
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (row, number) in rows::all(NOW).iter().zip(0u16..) {
        let [low, high] = number.to_le_bytes();
        let twists: &[u8] = if number % 8 == 0 { &[0, 0x13, 0x23, 0x30, 0x40, 0x52] } else { &[0] };
        for &twist in twists {
            seeds.push([&[low, high, twist, SEALED], &row.frame[..]].concat());
        }
    }
    seeds
}

/// Ends that the worlds know, and headers.
fn words() -> Vec<Vec<u8>> {
    let addresses = BACKENDS.iter().map(|backend| backend.address).chain([
        "192.0.2.1",
        "2001:db8::1",
        "10.0.9.1",
        "fd00:9::1",
        "10.0.0.1",
        "fd00::1",
        "198.51.100.7",
        "2001:db8:f::7",
    ]);
    let mut words: Vec<Vec<u8>> = addresses
        .map(|text| match text.parse().expect("an address") {
            std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
            std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
        })
        .collect();
    let headers: &[&[u8]] = &[
        &[0x81, 0, 0, 7],
        &[0x88, 0xa8, 0, 9],
        &[0x08, 0x00, 0x45, 0],
        &[0x86, 0xdd, 0x60, 0],
        &[0, 80],
        &[0, 53],
        &[4, 0],
        &[0x17, 0xc0],
        &[0x9c, 0x40],
        &[0x50, 0x02],
        &[0x50, 0x10],
        &[0x50, 0x04],
        &[0x50, 0x11],
        &[0x40, 0],
        &[0x20, 0],
        &[3, 4],
        &[3, 3],
        &[11, 0],
        &[2, 0],
        &[1, 0],
        &[8, 0],
        &[128, 0],
        &[0xff, 0xff],
        &[64, 6],
        &[64, 17],
        &[64, 1],
        &[6, 64],
        &[17, 64],
        &[58, 64],
        &[44, 64],
        &[64, 4],
        &[64, 41],
    ];
    words.extend(headers.iter().map(|word| word.to_vec()));
    words
}
