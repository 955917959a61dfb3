//! What the packet path may ask of its surroundings.

use core::convert::Infallible;

use lb_abi::{
    backend::BackendEntry,
    be::Be16,
    counter::FlowEvent,
    directory::{Bucket, PortRanges, VipSlot},
    flow::{CLOSING, FlowKey, FlowRecord, Inserts},
    guard::GuardBucket,
    hop::HopEntry,
    lengths::Lengths,
    limit::{Allowance, Limits, Meter},
    link::LinkEntry,
    meta::Meta,
    quic::{QuicEntry, QuicEvent, Server},
    reason::Reason,
    slot::Slot,
    source::{SourceKey, SourceTree},
    spread::Spread,
    tag::{FlowTag, TagKeys},
    vip::{VipEntry, VipKey},
};

use crate::route::{NextHop, Route, Unroutable};

/// Maps, routes, clock and counters.
///
/// Methods take `&self`: in the kernel all of this is shared with other cores and with control at any time.
pub trait Env {
    /// The one entry of `META`.
    fn meta(&self) -> Option<&Meta>;
    /// A word of `GATES`.
    #[inline(always)]
    fn gates(&self, _word: u32) -> u64 {
        0
    }
    /// A bucket of `GUARD`.
    #[inline(always)]
    fn guard(&self, _bucket: u32) -> Option<impl Words> {
        None::<GuardBucket>
    }
    /// An entry of `LENGTHS`.
    #[inline(always)]
    fn lengths(&self, _index: u32) -> Option<&Lengths> {
        None
    }
    /// The VIP of an address, port and protocol, from map `VIPS`: a hash-map look-up. Packets are looked up by the
    /// directory, which comes here only where it does not say.
    fn vip(&self, key: &VipKey) -> Option<&VipEntry>;
    /// A bucket of the VIP directory, read as one word. Surroundings without a directory have all in the map.
    #[inline(always)]
    fn vip_bucket(&self, _bucket: u32) -> Bucket {
        Bucket::UNKNOWN
    }
    /// A set of port ranges of the VIP directory; none for 0.
    #[inline(always)]
    fn vip_ranges(&self, _index: u32) -> Option<&PortRanges> {
        None
    }
    /// An entry of the VIP directory.
    #[inline(always)]
    fn vip_slot(&self, _index: u16) -> Option<&VipSlot> {
        None
    }
    /// The slot at an index of the whole array, read as one word.
    fn slot(&self, index: u32) -> Option<Slot>;
    /// A packet of some flow reads the slot: see [`lb_abi::activity`], whose word is [`Meta::activity`].
    #[inline(always)]
    fn touch(&self, _word: u32, _index: u32) {}
    /// The backend with an id, whether it is present or not.
    fn backend(&self, id: u16) -> Option<&BackendEntry>;
    /// What leads QUIC datagrams to the VIP with a counter index. Surroundings without QUIC have none.
    #[inline(always)]
    fn quic(&self, _vip: u32) -> Option<&QuicEntry> {
        None
    }
    /// Who has a server id, read as one word.
    #[inline(always)]
    fn server(&self, _id: u16) -> Option<Server> {
        None
    }
    /// Counts what led a datagram.
    #[inline(always)]
    fn count_quic(&self, _event: QuicEvent) {}
    /// How fast one source may open flows. Surroundings without limits have none of this.
    #[inline(always)]
    fn limits(&self) -> Option<&Limits> {
        None
    }
    /// SYNs on this core, as [`Env::keep_meter`] last kept them.
    #[inline(always)]
    fn meter(&self) -> Meter {
        Meter::default()
    }
    /// Keeps this core's count.
    #[inline(always)]
    fn keep_meter(&self, _meter: Meter) {}
    /// A source's allowance, if it was seen lately.
    #[inline(always)]
    fn allowance(&self, _source: &[u8; 16]) -> Option<impl AllowanceCell> {
        None::<Infallible>
    }
    /// Keeps the allowance of a source that has none.
    #[inline(always)]
    fn keep_allowance(&self, _source: &[u8; 16], _allowance: Allowance) {}
    /// The set of prefixes of the VIP with a counter index. Surroundings without prefixes have none of this.
    #[inline(always)]
    fn source_set(&self, _vip: u32) -> Option<u32> {
        None
    }
    /// In which order the lengths of a set are tried.
    #[inline(always)]
    fn source_tree(&self, _set: u32) -> Option<&SourceTree> {
        None
    }
    /// What a prefix or marker says, if there is one.
    #[inline(always)]
    fn source(&self, _key: &SourceKey) -> Option<u32> {
        None
    }
    /// Keys of tags. Surroundings that find flows by their keys have none.
    #[inline(always)]
    fn tag_keys(&self) -> TagKeys {
        TagKeys::default()
    }
    /// The place of a flow's record, if it has one: with a record of any epoch and age, or with none yet.
    fn flow(&self, key: &FlowKey, tag: FlowTag) -> Option<impl FlowCell>;
    /// Writes the first record of a flow. None: there is no room, or another core was faster; nothing was written.
    fn record(&self, key: &FlowKey, tag: FlowTag, record: FlowRecord) -> Option<()>;
    /// What this core has tried to record in the tick that it names.
    fn inserts(&self) -> Inserts {
        Inserts::default()
    }
    /// Keeps that.
    fn keep_inserts(&self, _inserts: Inserts) {}
    /// Tick at which a flow last could not be recorded, on any core.
    fn refused_at(&self) -> u32 {
        0
    }
    /// Says that a flow could not be recorded at `tick`. Whoever reads of the flow's packet later reads this, too.
    fn keep_refused_at(&self, _tick: u32) {}
    /// Ticks of the coarse monotonic clock (see [`lb_abi::slot::TICK_SHIFT`]). No hardware clock is
    /// read, but a helper is called: a settled packet never asks.
    fn now_ticks(&self) -> u32;
    /// The clock of [`Env::keep_hop`]'s answers (see [`lb_abi::hop::HOP_TICK_SHIFT`]): one load.
    #[inline(always)]
    fn hop_ticks(&self) -> u32 {
        self.now_ticks()
    }
    /// What [`Env::keep_hop`] last kept for a backend on this core.
    fn hop(&self, backend: u16) -> Option<HopEntry>;
    /// Keeps an answer of [`Env::route`] for a backend.
    fn keep_hop(&self, backend: u16, entry: HopEntry);
    /// What is known of an interface, by index.
    fn link(&self, interface: u32) -> Option<&LinkEntry>;
    /// Next hop to a destination, for a packet that came in by interface `ingress`.
    fn route(&self, ingress: u32, route: &Route) -> Result<NextHop, Unroutable>;
    /// Takes one out of what this core may answer by ICMP errors in the present tick; false: it is spent.
    fn may_answer(&self) -> bool;
    /// Counts a SYN for no VIP on this core; true: it had more than [`lb_abi::bounds::SYNS_PER_TICK`] in the present
    /// tick. This and [`Env::is_flooded`] default to what is true without listeners.
    fn count_syn(&self) -> bool {
        false
    }
    /// What [`Env::count_syn`] would say to one more, which is not counted.
    fn is_flooded(&self) -> bool {
        false
    }
    /// How packets of listeners are spread over cores. This and what belongs to it default to not at all.
    fn spread(&self) -> Option<&Spread> {
        None
    }
    /// Whether a listener has that port.
    fn is_spread(&self, _port: Be16) -> bool {
        false
    }
    /// The core of a worker, by number.
    fn core_of(&self, _worker: u32) -> Option<u32> {
        None
    }
    /// The core that this runs on.
    fn own_core(&self) -> u32 {
        0
    }
    /// Says which core gets the packet by [`crate::verdict::Verdict::Moved`]. False: none of that number.
    fn move_to(&self, _core: u32) -> bool {
        false
    }
    /// Counts a packet under its reason.
    fn count(&self, reason: Reason);
    /// Counts a flow event.
    fn count_flow(&self, event: FlowEvent);
    /// Counts a forwarded packet for a VIP (by counter index) and a backend (by id).
    fn count_traffic(&self, vip: u32, backend: u16, bytes: u64, new_flow: bool);
}

/// Words that control may store to at any time; each is read whole.
pub trait Words {
    /// One of them; 0 beyond the end.
    fn word(&self, at: usize) -> u64;
}

impl Words for GuardBucket {
    #[inline(always)]
    fn word(&self, at: usize) -> u64 {
        self.get(at).copied().unwrap_or(0)
    }
}

/// A record in its place in the table. Loads and stores are whole words, so that no core sees half a change; a
/// store of one field leaves the others to the cores that write those at the same moment.
pub trait FlowCell {
    /// Reads it. Zero: another core took the place and has not written its record yet.
    fn load(&self) -> FlowRecord;
    /// Overwrites it.
    fn store(&self, record: FlowRecord);
    /// Writes it where there is none yet. False: another core did. As for [`FlowCell::touch`].
    fn begin(&self, record: FlowRecord) -> bool {
        let is_none = self.load().backend == 0;
        if is_none {
            self.store(record);
        }
        is_none
    }
    /// Overwrites the tick of its last packet alone. This default does for records that no other core has.
    fn touch(&self, seen: u32) {
        self.store(FlowRecord { seen, ..self.load() });
    }
    /// Overwrites its state with [`CLOSING`] alone. As for [`FlowCell::touch`].
    fn close(&self) {
        self.store(FlowRecord { state: CLOSING, ..self.load() });
    }
}

/// An allowance in its place. Loads and stores are whole words, as with [`FlowCell`].
pub trait AllowanceCell {
    /// Reads it.
    fn load(&self) -> Allowance;
    /// Overwrites it.
    fn store(&self, allowance: Allowance);
}

/// Where there are no allowances.
impl AllowanceCell for Infallible {
    #[inline(always)]
    fn load(&self) -> Allowance {
        match *self {}
    }

    #[inline(always)]
    fn store(&self, _: Allowance) {
        match *self {}
    }
}
