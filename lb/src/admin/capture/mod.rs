//! `GET /v1/capture?...`: packets as they come in, with what became of each, as a pcapng stream that goes on until
//! its count or duration is reached or the client goes.
//!
//! ```text
//! XDP -> ring -> thread of control -> Feed (bounded) -> pcapng -> client
//! ```
//! Whoever is slow loses packets further up, where that is counted, and never holds up the packet path. A tally stands
//! in the stream about once a second, as statistics of its first interface.

pub(crate) mod blocks;
mod stream;
mod wish;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use lb_abi::capture::{CaptureCounters, CaptureRecord};

pub(super) use self::stream::{Chunks, pcapng};
pub use self::wish::{PARAMETERS, Wish};

/// Content type of the stream. Source: IANA's list of media types has none for pcapng; this is what tools send.
pub(super) const CONTENT_TYPE: &str = "application/x-pcapng";

/// What a running capture gives.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Interfaces with `lb_ingress`, by index.
    pub interfaces: BTreeMap<u32, String>,
    /// VIPs by counter index.
    pub vips: BTreeMap<u32, Arc<str>>,
    /// Packets and tallies. It ends with a tally; dropping it ends the capture.
    pub events: flume::Receiver<Event>,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A packet.
    Packet(Box<Packet>),
    /// How many there were and how many were lost, so far.
    Tally(CaptureCounters),
}

/// One packet.
#[derive(Clone, Debug)]
pub struct Packet {
    /// When it came in, since 1970.
    pub at: Duration,
    /// What was done with it.
    pub record: CaptureRecord,
    /// The first bytes of its frame as it came in.
    pub frame: Vec<u8>,
}
