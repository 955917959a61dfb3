//! What the packet path did with one packet, step by step.
//!
//! `lb_why` writes it for an operator's question, `lb_capture` for each packet it looks at; `lb_ingress` knows
//! nothing of it.

use crate::{
    backend::BackendEntry,
    flow::FlowRecord,
    hop::HopEntry,
    vip::{VipEntry, VipKey},
};

/// Each step of a packet that can be told apart. A later step of one kind overwrites an earlier one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// `STEP_*` below: what happened, and so which fields hold something.
    pub steps: u32,
    /// [`crate::reason::Reason`] as a number; holds with [`STEP_COUNTED`].
    pub reason: u32,
    /// `VERDICT_*` below.
    pub verdict: u32,
    /// Index of the interface that the packet leaves by, if it does.
    pub interface: u32,
    /// What the VIP was looked up by.
    pub vip_key: VipKey,
    /// Ticks of the clock, with [`STEP_CLOCK`].
    pub now_ticks: u32,
    /// What was found there, with [`STEP_VIP_FOUND`].
    pub vip: VipEntry,
    /// [`crate::slot::Slot`] as it was read, with [`STEP_SLOT`].
    pub slot: u64,
    /// Its index in the whole array.
    pub slot_index: u32,
    /// Id of the backend that was chosen, with [`STEP_BACKEND`].
    pub backend: u32,
    /// What that id stands for.
    pub backend_entry: BackendEntry,
    /// The flow's record as it was found, of any epoch and age, with [`STEP_RECORD_FOUND`].
    pub record_found: FlowRecord,
    /// The record that is left behind, with [`STEP_RECORD_LEFT`].
    pub record_left: FlowRecord,
    /// [`crate::counter::FlowEvent`]s counted: bit n for number n.
    pub events: u32,
    /// Length of the packet as it leaves, from its first IP header on, with [`STEP_ROUTE_ASKED`].
    pub length: u16,
    /// Core whose worker owns the flow, with [`STEP_SPREAD`].
    pub core: u16,
    /// Source address of the packet as it leaves, where a header of ours is put before it; else zero.
    pub route_source: [u8; 16],
    /// Destination that the way was asked to.
    pub route_destination: [u8; 16],
    /// The way that was found, with [`STEP_ROUTE_FOUND`].
    pub hop: HopEntry,
    /// [`crate::quic::QuicEvent`] as a number, with [`STEP_QUIC`].
    pub quic_event: u32,
    /// Index of the first slot of the table that the source's prefix has, or [`crate::source::OWN`], with
    /// [`STEP_SOURCE_ASKED`].
    pub source_table: u32,
}

/// The deny list was looked through.
pub const STEP_DENY_ASKED: u32 = 1 << 0;
/// A VIP was looked for.
pub const STEP_VIP_ASKED: u32 = 1 << 1;
/// A VIP was found.
pub const STEP_VIP_FOUND: u32 = 1 << 2;
/// A slot was read.
pub const STEP_SLOT: u32 = 1 << 3;
/// A backend's entry was read.
pub const STEP_BACKEND: u32 = 1 << 4;
/// A record of the flow was looked for.
pub const STEP_RECORD_ASKED: u32 = 1 << 5;
/// One was found.
pub const STEP_RECORD_FOUND: u32 = 1 << 6;
/// One is left behind.
pub const STEP_RECORD_LEFT: u32 = 1 << 7;
/// The routing table was asked.
pub const STEP_ROUTE_ASKED: u32 = 1 << 8;
/// A way was found: by it, or by the gateway of the interface.
pub const STEP_ROUTE_FOUND: u32 = 1 << 9;
/// The clock was read.
pub const STEP_CLOCK: u32 = 1 << 10;
/// It came to an end, and was counted or would have been.
pub const STEP_COUNTED: u32 = 1 << 11;
/// It counts as the first packet of a flow.
pub const STEP_NEW_FLOW: u32 = 1 << 12;
/// It counts as traffic of VIP and backend.
pub const STEP_TRAFFIC: u32 = 1 << 13;
/// The allow list lets its source in.
pub const STEP_ALLOWED: u32 = 1 << 14;
/// It is a listener's, and packets of those are spread over cores.
pub const STEP_SPREAD: u32 = 1 << 15;

/// It was looked for a connection id that names a server.
pub const STEP_QUIC: u32 = 1 << 20;
/// It was looked for the pool of the source's prefix.
pub const STEP_SOURCE_ASKED: u32 = 1 << 21;
/// It was looked at how many flows the source has opened.
pub const STEP_LIMIT_ASKED: u32 = 1 << 22;

/// To the local stack.
pub const VERDICT_PASS: u32 = 1;
/// Gone.
pub const VERDICT_DROP: u32 = 2;
/// Out by the interface it came in by.
pub const VERDICT_TRANSMIT: u32 = 3;
/// Out by another interface.
pub const VERDICT_REDIRECT: u32 = 4;
/// On to `lb_nat`, which decides and counts: the trace ends here.
pub const VERDICT_TRANSLATE: u32 = 5;
/// On to `lb_cookie`, the same.
pub const VERDICT_COOKIE: u32 = 6;
/// To the local stack, on the core that the trace has.
pub const VERDICT_MOVED: u32 = 7;

/// The one entry of map `WHY`: a question, and the answer of `lb_why`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Why {
    /// Index of the interface that the packet is to come in by; written by control, before it runs the program.
    pub ingress: u32,
    /// Zero.
    pub pad: u32,
    /// All zero before.
    pub trace: Trace,
}

const _: () = assert!(size_of::<Trace>() == 232);
const _: () = assert!(size_of::<Why>() == 240);
