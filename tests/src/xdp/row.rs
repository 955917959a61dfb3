//! One case, and how it is judged.

use lb_abi::{
    counter::FlowEvent,
    flow::FlowKey,
    nat::{NatEntry, NatEvent},
    quic::QuicEvent,
    reason::Reason,
};
use lb_ebpf::verdict::Verdict;

use crate::{
    packet::{Packet, with_sequence},
    xdp::world::{COOKIE, World},
};

/// The program a row is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `lb_ingress`.
    Ingress,
    /// `lb_decap`.
    Decap,
}

/// Where a row can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the host and in the kernel.
    Both,
    /// On the host only; says why.
    HostOnly(&'static str),
}

/// Traffic counted for a VIP and a backend: one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Counter index of the VIP.
    pub vip: u32,
    /// Backend id.
    pub backend: u16,
    /// Bytes.
    pub bytes: u64,
    /// 0 or 1.
    pub new_flows: u64,
}

/// A record as left behind; the time stamp only as fresh (the row's tick or after) or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Whose.
    pub key: FlowKey,
    /// Backend id.
    pub backend: u16,
    /// Epoch.
    pub epoch: u8,
    /// State.
    pub state: u8,
    /// Seen by this packet.
    pub fresh: bool,
}

/// What a run did, or should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Result {
    /// Told to the kernel.
    pub verdict: Verdict,
    /// The frame afterwards; as it came in where it was dropped, since nobody sees it again.
    pub frame: Vec<u8>,
    /// Every reason counted, once per count.
    pub reasons: Vec<Reason>,
    /// Every flow event counted, in index order.
    pub events: Vec<FlowEvent>,
    /// What led datagrams of QUIC VIPs, in index order.
    pub quic: Vec<QuicEvent>,
    /// Traffic counted.
    pub moved: Vec<Moved>,
    /// Records, in key order.
    pub records: Vec<Left>,
    /// What is left in the allowance of every source that was looked at, in their order.
    pub allowances: Vec<([u8; 16], u32)>,
    /// Translated flows.
    pub nat: NatLeft,
}

/// Translated flows as left behind, and what was counted of them. Ticks are only told as fresh (1: the row's tick or
/// after) or not (0).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatLeft {
    /// Of `NAT_OPENING`.
    pub opening: Vec<(FlowKey, NatEntry)>,
    /// Of `NAT_FLOWS`.
    pub flows: Vec<(FlowKey, NatEntry)>,
    /// Events, in index order.
    pub events: Vec<NatEvent>,
}

impl NatLeft {
    /// In key order, and with ticks told as fresh or not at `now`.
    pub fn normal(mut self, now: u32) -> Self {
        for (_, entry) in self.opening.iter_mut().chain(&mut self.flows) {
            entry.seen = u32::from(entry.seen.wrapping_sub(now) <= u32::MAX / 2);
        }
        let order = |(key, _): &(FlowKey, NatEntry)| {
            (key.source, key.source_port, key.destination, key.destination_port)
        };
        self.opening.sort_by_key(order);
        self.flows.sort_by_key(order);
        self.events.sort_by_key(|event| *event as u32);
        self
    }
}

/// A case.
#[derive(Clone, Debug)]
pub struct Row {
    /// Says what is expected.
    pub name: &'static str,
    /// Of which program.
    pub program: Program,
    /// Where it runs.
    pub place: Place,
    /// Room in front of the frame, on the host.
    pub headroom: usize,
    /// Maps.
    pub world: World,
    /// Frame in.
    pub frame: Vec<u8>,
    /// What should come of it.
    pub expected: Result,
}

impl Row {
    /// Everything that differs, or nothing.
    pub fn check(&self, mut got: Result) -> std::result::Result<(), String> {
        if got.verdict == Verdict::Drop {
            got.frame = self.frame.clone();
        }
        got.allowances.sort();
        if got.reasons == [Reason::SynCookie] {
            // The kernel's cookies are its secret.
            let ip_at = ip_at(&got.frame);
            got.frame = with_sequence(&got.frame, ip_at, COOKIE)
                .ok_or_else(|| format!("{}: a wrong checksum in {}", self.name, hex(&got.frame)))?;
        }
        got.records.sort_by_key(|left| (left.key.source, left.key.source_port));
        if got == self.expected {
            return Ok(());
        }
        Err(format!(
            "{}\n   in       {}\n   expected {}\n   got      {}",
            self.name,
            hex(&self.frame),
            show(&self.expected),
            show(&got)
        ))
    }
}

/// Behind the Ethernet header and its tags.
fn ip_at(frame: &[u8]) -> usize {
    let is_tag = |at: usize| matches!(frame.get(at..at + 2), Some([0x81, 0] | [0x88, 0xa8]));
    14 + 4 * (0..2).take_while(|tags| is_tag(12 + 4 * tags)).count()
}

fn show(result: &Result) -> String {
    let Result { verdict, frame, reasons, events, quic, moved, records, allowances, nat } = result;
    let mut text = format!(
        "{verdict:?} {reasons:?} {events:?} {quic:?} {moved:?} {records:?} {allowances:?}\n            {}",
        hex(frame)
    );
    for (table, (key, entry)) in
        nat.opening.iter().map(|pair| ("opening", pair)).chain(nat.flows.iter().map(|pair| ("flows", pair)))
    {
        text += &format!("\n            {table} {key:?}\n                -> {entry:?}");
    }
    text + &format!("\n            {:?}", nat.events)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(96).map(|byte| format!("{byte:02x}")).collect()
}

/// A frame of a packet, for rows that edit bytes afterwards.
pub fn edited(packet: &Packet, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = packet.build();
    edit(&mut frame);
    frame
}
