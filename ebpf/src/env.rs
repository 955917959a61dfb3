//! What the packet path may ask of its surroundings.

use lb_abi::{
    backend::BackendEntry,
    counter::FlowEvent,
    flow::{FlowKey, FlowRecord},
    hop::HopEntry,
    meta::Meta,
    reason::Reason,
    slot::Slot,
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
    /// A packet of some flow reads the slot: see [`lb_abi::activity`].
    #[inline(always)]
    fn touch(&self, _index: u32) {}
    /// The backend with an id, whether it is present or not.
    fn backend(&self, id: u16) -> Option<&BackendEntry>;
    /// The flow's record, if there is one of any epoch and age.
    fn flow(&self, key: &FlowKey) -> Option<impl FlowCell>;
    /// Writes a record over none or an old one. None: the table is full and nothing was written.
    fn record(&self, key: &FlowKey, record: FlowRecord) -> Option<()>;
    /// Ticks of the coarse monotonic clock (see [`lb_abi::slot::TICK_SHIFT`]). Cheap: no hardware clock is read.
    fn now_ticks(&self) -> u32;
    /// What [`Env::keep_hop`] last kept for a backend on this core.
    fn hop(&self, backend: u16) -> Option<HopEntry>;
    /// Keeps an answer of [`Env::route`] for a backend.
    fn keep_hop(&self, backend: u16, entry: HopEntry);
    /// Next hop to a destination, for a packet that came in by interface `ingress`.
    fn route(&self, ingress: u32, route: &Route) -> Result<NextHop, Unroutable>;
    /// Counts a packet under its reason.
    fn count(&self, reason: Reason);
    /// Counts a flow event.
    fn count_flow(&self, event: FlowEvent);
    /// Counts a forwarded packet for a VIP (by counter index) and a backend (by id).
    fn count_traffic(&self, vip: u32, backend: u16, bytes: u64, new_flow: bool);
}

/// A record in its place in the table. Loads and stores are whole words, so that no core sees half a change.
pub trait FlowCell {
    /// Reads it.
    fn load(&self) -> FlowRecord;
    /// Overwrites it.
    fn store(&self, record: FlowRecord);
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
}

/// Where a frame goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface it leaves by.
    pub interface: u32,
    /// Ethernet destination, then source, as words of the wire.
    pub addresses: [u16; 6],
    /// Longest IP packet that the way out takes.
    pub mtu: u16,
}

/// Why there is no next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unroutable {
    /// No usable route, or forwarding is disabled on the ingress interface.
    NoRoute,
    /// The next hop's Ethernet address is not known.
    NoNeighbour,
    /// Longer than the way out takes.
    TooLong,
}

impl Unroutable {
    /// The drop reason it is counted under.
    #[inline(always)]
    pub const fn reason(self) -> Reason {
        match self {
            Self::NoRoute => Reason::NoRoute,
            Self::NoNeighbour => Reason::NoNeighbour,
            Self::TooLong => Reason::Mtu,
        }
    }
}
