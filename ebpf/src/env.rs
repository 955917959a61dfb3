//! What the packet path may ask of its surroundings.

use lb_abi::{
    backend::BackendEntry,
    be::Be16,
    counter::FlowEvent,
    flow::{CLOSING, FlowKey, FlowRecord, Inserts},
    hop::HopEntry,
    link::LinkEntry,
    meta::Meta,
    reason::Reason,
    slot::Slot,
    spread::Spread,
    vip::{VipEntry, VipKey},
};

use crate::{address::Address, numbers::Family};

/// Maps, routes, clock and counters.
///
/// Methods take `&self`: in the kernel all of this is shared with other cores and with control at any time.
pub trait Env {
    /// The one entry of `META`.
    fn meta(&self) -> Option<&Meta>;
    /// Whether a prefix of `DENY_V4` covers the source.
    fn denied_v4(&self, source: [u8; 4]) -> bool;
    /// Whether a prefix of `DENY_V6` covers the source.
    fn denied_v6(&self, source: [u8; 16]) -> bool;
    /// The VIP of an address, port and protocol.
    fn vip(&self, key: &VipKey) -> Option<&VipEntry>;
    /// The slot at an index of the whole array, read as one word.
    fn slot(&self, index: u32) -> Option<Slot>;
    /// The backend with an id, whether it is present or not.
    fn backend(&self, id: u16) -> Option<&BackendEntry>;
    /// The flow's record, if there is one of any epoch and age.
    fn flow(&self, key: &FlowKey) -> Option<impl FlowCell>;
    /// Writes the first record of a flow. None: the table is full, or another core was faster; nothing was
    /// written.
    fn record(&self, key: &FlowKey, record: FlowRecord) -> Option<()>;
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
    /// Ticks of the coarse monotonic clock (see [`lb_abi::slot::TICK_SHIFT`]). Cheap: no hardware clock is read.
    fn now_ticks(&self) -> u32;
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
    /// tick. This default is for surroundings without listeners.
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

/// A record in its place in the table. Loads and stores are whole words, so that no core sees half a change; a
/// store of one field leaves the others to the cores that write those at the same moment.
pub trait FlowCell {
    /// Reads it.
    fn load(&self) -> FlowRecord;
    /// Overwrites it.
    fn store(&self, record: FlowRecord);
    /// Overwrites the tick of its last packet alone. This default does for records that no other core has.
    fn touch(&self, seen: u32) {
        self.store(FlowRecord { seen, ..self.load() });
    }
    /// Overwrites its state with [`CLOSING`] alone. As for [`FlowCell::touch`].
    fn close(&self) {
        self.store(FlowRecord { state: CLOSING, ..self.load() });
    }
}

/// A question to the routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Family of both addresses.
    pub family: Family,
    /// Source address; IPv4 as `::ffff:a.b.c.d`.
    pub source: Address,
    /// Destination address, the same.
    pub destination: Address,
    /// IP protocol of the packet as it will leave.
    pub protocol: u8,
    /// Its length from the IP header on, checked against the MTU of the way out.
    pub length: u16,
    /// Any router may carry it: it is addressed to the backend. Else the backend must be a neighbour.
    pub is_tunnel: bool,
}

/// Where a frame goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface it leaves by.
    pub interface: u32,
    /// Ethernet destination, then source, as words of the wire.
    pub addresses: [u16; 6],
    /// Tags that the frame gets, as in [`LinkEntry::tags`]; none: it keeps or loses its own.
    pub tags: [u32; 2],
    /// Longest IP packet that the way out takes.
    pub mtu: u16,
}

impl NextHop {
    /// Whether the frame gets tags.
    #[inline(always)]
    pub const fn is_tagged(&self) -> bool {
        self.tags[0] != 0
    }
}

/// Why there is no next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unroutable {
    /// No usable route, or forwarding is disabled on the ingress interface.
    NoRoute,
    /// The next hop's Ethernet address is not known.
    NoNeighbour,
    /// Longer than the way out takes.
    TooLong {
        /// Longest IP packet that it takes.
        mtu: u16,
    },
}

impl Unroutable {
    /// The drop reason it is counted under.
    #[inline(always)]
    pub const fn reason(self) -> Reason {
        match self {
            Self::NoRoute => Reason::NoRoute,
            Self::NoNeighbour => Reason::NoNeighbour,
            Self::TooLong { .. } => Reason::Mtu,
        }
    }
}
