//! A feed as a pcapng stream.

use std::{collections::BTreeMap, convert::Infallible, pin::Pin, sync::Arc, time::SystemTime};

use futures_lite::{Stream, stream};
use hyper::body::{Bytes, Frame};
use lb_abi::{
    capture::CaptureCounters,
    quic::QuicEvent,
    reason::{Fate, Reason},
    slot::{Phase, Slot},
    source::OWN,
    trace::{
        STEP_BACKEND, STEP_NEW_FLOW, STEP_QUIC, STEP_RECORD_FOUND, STEP_SLOT, STEP_SOURCE_ASKED, STEP_SPREAD,
        STEP_VIP_FOUND, Trace, VERDICT_COOKIE, VERDICT_DROP, VERDICT_PASS, VERDICT_TRANSLATE,
        VERDICT_TRANSMIT,
    },
    vip::{FORWARD_GUE, FORWARD_IPIP, FORWARD_L2DSR},
};

use super::{
    Event, Feed, Packet,
    blocks::{EnhancedPacket, Writer},
};
use crate::{admin::view::View, model::BackendId};

/// Bytes that are gathered before they are sent, when there is more.
const CHUNK_BYTES: usize = 64 << 10;

/// Ends when the feed does; dropping it drops the feed.
pub(in crate::admin) type Chunks = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>>>>;

/// Everything of a feed, headers first.
pub(in crate::admin) fn pcapng(view: Arc<View>, feed: Feed, snap: u32) -> Chunks {
    let mut scribe = Scribe::new(view, &feed, snap);
    let head = scribe.writer.take();
    let rest = stream::unfold((scribe, feed), |(mut scribe, feed)| async move {
        let mut next = Some(feed.events.recv_async().await.ok()?);
        while let Some(event) = next {
            scribe.write(&feed, &event);
            next = if scribe.writer.len() < CHUNK_BYTES { feed.events.try_recv().ok() } else { None };
        }
        let chunk = scribe.writer.take();
        Some((chunk, (scribe, feed)))
    });
    let frames = stream::StreamExt::map(rest, |chunk| Ok(Frame::data(Bytes::from(chunk))));
    Box::pin(stream::StreamExt::chain(stream::once(Ok(Frame::data(Bytes::from(head)))), frames))
}

/// Writes blocks, and knows which interface block is whose.
struct Scribe {
    view: Arc<View>,
    writer: Writer,
    /// Place of each interface's block, by index.
    places: BTreeMap<u32, u32>,
    snap: u32,
}

impl Scribe {
    fn new(view: Arc<View>, feed: &Feed, snap: u32) -> Self {
        let mut this = Self { view, writer: Writer::default(), places: BTreeMap::new(), snap };
        this.writer.section(concat!("lb ", env!("CARGO_PKG_VERSION")));
        feed.interfaces.iter().for_each(|(index, name)| _ = this.add_interface(*index, name));
        this
    }

    fn add_interface(&mut self, index: u32, name: &str) -> u32 {
        self.writer.interface(name, self.snap);
        // As many as there are interfaces.
        let place = self.places.len() as u32;
        self.places.insert(index, place);
        place
    }

    fn write(&mut self, feed: &Feed, event: &Event) {
        match event {
            Event::Packet(packet) => self.packet(feed, packet),
            Event::Tally(tally) => self.tally(tally),
        }
    }

    fn packet(&mut self, feed: &Feed, packet: &Packet) {
        let Packet { at, record, frame } = packet;
        let index = record.ingress;
        // One that came up after the capture began has no name here.
        let place = self.places.get(&index).copied();
        let place = place.unwrap_or_else(|| self.add_interface(index, &format!("interface {index}")));
        let comment = comment(&self.view, feed, &record.trace);
        self.writer.packet(&EnhancedPacket {
            interface: place,
            at: *at,
            length: record.length,
            frame,
            comment: &comment,
            verdict: xdp_action(record.trace.verdict),
        });
    }

    fn tally(&mut self, tally: &CaptureCounters) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.writer.statistics(0, now, tally);
    }
}

/// `enum xdp_action` of the kernel.
const fn xdp_action(verdict: u32) -> Option<u64> {
    match verdict {
        VERDICT_DROP => Some(1),
        VERDICT_PASS => Some(2),
        VERDICT_TRANSMIT => Some(3),
        // Not known yet.
        VERDICT_TRANSLATE | VERDICT_COOKIE => None,
        _ => Some(4),
    }
}

/// What became of a packet, in one line: `dropped: mtu; vip dns; backend dns/10.0.1.53 (id 3); slot settled`.
fn comment(view: &View, feed: &Feed, trace: &Trace) -> String {
    let has = |step| trace.steps & step != 0;
    let reason = Reason::of_number(trace.reason).unwrap_or(Reason::Abi);
    let mut parts = vec![match reason.fate() {
        _ if trace.verdict == VERDICT_TRANSLATE => "on to translation".to_owned(),
        _ if trace.verdict == VERDICT_COOKIE => "on to SYN cookies".to_owned(),
        Fate::Forward => format!("{}{}", reason.name(), by(trace)),
        Fate::Answer => format!("answered: {}", reason.name()),
        Fate::Drop => format!("dropped: {}", reason.name()),
        Fate::Pass => format!("passed: {}", reason.name()),
    }];
    if has(STEP_VIP_FOUND) {
        parts.extend(feed.vips.get(&trace.vip.vip).map(|name| format!("vip {name}")));
    }
    if has(STEP_BACKEND) && trace.backend != 0 {
        // Ids are 16 bits wide; the field is not.
        let id = BackendId(trace.backend as u16);
        parts.push(format!("backend {}", view.backend_name(id, None)));
    }
    if has(STEP_SLOT) {
        parts.push(format!(
            "slot {}",
            match Slot(trace.slot).phase() {
                Phase::Settled => "settled",
                Phase::Open => "open",
                Phase::Closed => "closed",
                Phase::Sweeping => "sweeping",
            }
        ));
    }
    if has(STEP_QUIC) {
        parts.push(format!("quic {}", QuicEvent::of_number(trace.quic_event).name()));
    }
    if has(STEP_SOURCE_ASKED) && trace.source_table != OWN {
        parts.push("pool by source".to_owned());
    }
    if has(STEP_RECORD_FOUND) {
        parts.push("recorded flow".to_owned());
    }
    if has(STEP_SPREAD) {
        parts.push(format!("core {}", trace.core));
    }
    if has(STEP_NEW_FLOW) {
        parts.push("new flow".to_owned());
    }
    parts.join("; ")
}

fn by(trace: &Trace) -> &'static str {
    match trace.vip.flags {
        flags if flags & FORWARD_IPIP != 0 => " by ipip",
        flags if flags & FORWARD_GUE != 0 => " by gue",
        flags if flags & FORWARD_L2DSR != 0 => " by l2dsr",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_lite::{StreamExt as _, future::block_on};
    use lb_abi::{capture::CaptureRecord, trace::VERDICT_MOVED};

    use super::*;
    use crate::admin::{capture::blocks, fixture};

    fn trace() -> Trace {
        let mut trace = Trace {
            steps: STEP_VIP_FOUND | STEP_BACKEND | STEP_SLOT | STEP_NEW_FLOW,
            reason: Reason::Forwarded as u32,
            verdict: VERDICT_TRANSMIT,
            slot: Slot::new(3, 2, Phase::Open, 1, 0).0,
            backend: 3,
            ..Trace::default()
        };
        (trace.vip.vip, trace.vip.flags) = (5, FORWARD_IPIP);
        trace
    }

    fn feed() -> (flume::Sender<Event>, Feed) {
        let (sender, events) = flume::bounded(8);
        let feed =
            Feed { interfaces: [(2, "eth0".to_owned())].into(), vips: [(5, "dns".into())].into(), events };
        (sender, feed)
    }

    #[test]
    fn a_comment_says_what_became_of_a_packet_and_why() {
        let (view, (_, feed)) = (fixture::view(), feed());
        let said = |trace: &Trace| comment(&view, &feed, trace);
        assert_eq!(
            said(&trace()),
            "forwarded by ipip; vip dns; backend dns/10.0.1.53 (id 3); slot open; new flow"
        );
        let denied = Trace { reason: Reason::Denied as u32, ..Trace::default() };
        assert_eq!(said(&denied), "dropped: denied");
        let passed = Trace { reason: Reason::NotOurs as u32, ..Trace::default() };
        assert_eq!(said(&passed), "passed: not-ours");
        let (steps, core) = (STEP_SPREAD, 3);
        assert_eq!(said(&Trace { steps, core, ..passed }), "passed: not-ours; core 3");
        let moved = Trace { steps, core, reason: Reason::Spread as u32, verdict: VERDICT_MOVED, ..passed };
        assert_eq!(said(&moved), "passed: spread; core 3");
        assert_eq!(xdp_action(moved.verdict), Some(4), "as a redirect");
        let flooded = Trace { verdict: VERDICT_COOKIE, ..passed };
        assert_eq!((&*said(&flooded), xdp_action(flooded.verdict)), ("on to SYN cookies", None));
    }

    #[test]
    fn a_feed_becomes_whole_blocks_and_ends_when_it_does() {
        let (sender, feed) = feed();
        let record = CaptureRecord {
            length: 60,
            captured: 14,
            ingress: 2,
            trace: trace(),
            ..CaptureRecord::default()
        };
        for ingress in [2, 9, 9] {
            let record = CaptureRecord { ingress, ..record };
            let packet = Packet { at: Duration::from_secs(1), record, frame: vec![7; 14] };
            sender.send(Event::Packet(Box::new(packet))).unwrap();
        }
        let tally = CaptureCounters { written: 3, ..CaptureCounters::default() };
        sender.send(Event::Tally(tally)).unwrap();
        drop(sender);
        let chunks = block_on(pcapng(Arc::new(fixture::view()), feed, 128).collect::<Vec<_>>());
        let bytes: Vec<u8> =
            chunks.into_iter().flat_map(|chunk| chunk.unwrap().into_data().unwrap().to_vec()).collect();
        let mut rest = &bytes[..];
        let (mut kinds, mut last) = (Vec::new(), None);
        while let Some((kind, block)) = blocks::block(rest).unwrap() {
            kinds.push(kind);
            last = blocks::tally(block);
            rest = &rest[block.len()..];
        }
        // Section, eth0, packet, the interface nobody knew, two packets, statistics.
        assert_eq!(kinds, [0x0a0d_0d0a, 1, 6, 1, 6, 6, 5]);
        assert_eq!(last, Some(tally));
        assert!(bytes.windows(8).any(|window| window == b"vip dns;"));
    }
}
