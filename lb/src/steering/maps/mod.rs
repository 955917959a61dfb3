//! Typed handles on the maps of the contract. A map has the same name here as in the kernel half.

mod directory;
mod flows;
mod grace;
mod guard;
mod lengths;
mod nat;
mod slots;
mod words;

use aya::{
    Ebpf,
    maps::{
        Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, ProgramArray, ReusePortSockArray,
        SockMap,
    },
};
use lb_abi::{
    backend::BackendEntry,
    bounds,
    counter::{FlowEvent, Traffic},
    directory::{PortRanges, VipSlot},
    flow::{BUCKET_LEN, FlowBucket, FlowKey, FlowName, Inserts},
    guard::{GATE_WORDS, GuardBucket},
    interface::{self, InterfaceEntry},
    lengths::{LISTS, Lengths},
    link::LinkEntry,
    lookup::LookupEntry,
    names,
    nat::{NatEntry, NatEvent, NatPool},
    quic::{QuicEntry, QuicEvent},
    reason,
    source::{SourceKey, SourceTree},
    steer::{SteerCounters, SteerEntry, SteerKey},
    vip::{VipEntry, VipKey},
};

pub use directory::{Directory, Mapped};
pub use flows::Flows;
pub use guard::{Guard, Lists};
pub use lengths::PrefixLengths;
pub use nat::{NatMaps, NatPlace};
pub use slots::{SlotArray, Slots};

use self::words::Words;
use super::error::{Error, Result};

/// `META`: one entry.
pub type Meta = Array<MapData, lb_abi::meta::Meta>;
/// `VIPS`.
pub type Vips = HashMap<MapData, VipKey, VipEntry>;
/// `BACKENDS`, by backend id.
pub type Backends = Array<MapData, BackendEntry>;
/// `QUIC`, by VIP index.
pub type Quic = Array<MapData, QuicEntry>;
/// `QUIC_SERVERS`, by server id.
pub type QuicServers = Array<MapData, u64>;
/// `QUIC_EVENTS`, by event.
pub type QuicEvents = PerCpuArray<MapData, u64>;
/// `SOURCES`.
pub type Sources = HashMap<MapData, SourceKey, u32>;
/// `SOURCE_TREES`, by set.
pub type SourceTrees = Array<MapData, SourceTree>;
/// `SOURCE_SETS`, by VIP index.
pub type SourceSets = Array<MapData, u32>;
/// `LIMITS`: one entry.
pub type Limits = Array<MapData, lb_abi::limit::Limits>;
/// `PROGRAMS`, by call.
pub type Programs = ProgramArray<MapData>;
/// `REFUSED_AT`: one entry.
pub type RefusedAt = Array<MapData, u32>;
/// `LINKS`, by interface index.
pub type Links = HashMap<MapData, u32, LinkEntry>;
/// `REASONS`, by reason.
pub type Reasons = PerCpuArray<MapData, u64>;
/// `INTERFACES`, by place.
pub type InterfaceNumbers = Array<MapData, InterfaceEntry>;
/// `DROPS`, by interface number and reason.
pub type Drops = PerCpuArray<MapData, u64>;
/// `FLOW_EVENTS`, by event.
pub type FlowEvents = PerCpuArray<MapData, u64>;
/// `VIP_TRAFFIC` and `BACKEND_TRAFFIC`.
pub type TrafficCounters = PerCpuArray<MapData, Traffic>;
/// `STEER_LISTENERS`.
pub type SteerListeners = HashMap<MapData, SteerKey, SteerEntry>;
/// `STEER_SOCKETS`.
pub type SteerSockets = ReusePortSockArray<MapData>;
/// `STEER_CORES`, by core.
pub type SteerCores = Array<MapData, u32>;
/// `STEER_COUNTERS`, by group.
pub type SteerCounts = PerCpuArray<MapData, SteerCounters>;

/// `STEER_LOADS`, by worker.
pub type SteerLoads = Array<MapData, u32>;
/// `STEER_RELIEVED`, by group.
pub type SteerRelieved = PerCpuArray<MapData, u64>;

/// `LOOKUP_SOCKETS`, by group and worker.
pub type LookupSockets = SockMap<MapData>;
/// `LOOKUP_PREFIXES`.
pub type LookupPrefixes = LpmTrie<MapData, [u8; 16], LookupEntry>;
/// `WHY`: one entry.
pub type Why = Array<MapData, lb_abi::trace::Why>;

/// Every map, open. Dropping it closes them; pinned ones live on.
pub struct Maps {
    /// What holds for the whole packet path.
    pub meta: Meta,
    /// What a packet may be addressed to.
    pub vips: Vips,
    /// How packets find what stands in `vips`.
    pub directory: Directory,
    /// All tables.
    pub slots: Slots,
    /// Where a packet may go.
    pub backends: Backends,
    /// What connection ids of a VIP are checked by.
    pub quic: Quic,
    /// Whom they name.
    pub quic_servers: QuicServers,
    /// What led datagrams of QUIC VIPs.
    pub quic_events: QuicEvents,
    /// Clients with a pool of their own.
    pub sources: Sources,
    /// In which order their prefixes' lengths are tried.
    pub source_trees: SourceTrees,
    /// Which set of prefixes is read.
    pub source_sets: SourceSets,
    /// How fast one source may open flows.
    pub limits: Limits,
    /// What is remembered of flows.
    pub flows: Flows,
    /// What `lb_ingress` calls.
    pub programs: Programs,
    /// When a flow last could not be recorded.
    pub refused_at: RefusedAt,
    /// What is known of interfaces.
    pub links: Links,
    /// Translated flows.
    pub nat: NatMaps,
    /// Denied and allowed sources.
    pub guard: Guard,
    /// Prefix lengths of these and of VIP addresses.
    pub lengths: PrefixLengths,
    /// Verdicts.
    pub reasons: Reasons,
    /// Numbers of interfaces.
    pub interfaces: InterfaceNumbers,
    /// Dropped packets by interface.
    pub drops: Drops,
    /// What became of flows.
    pub flow_events: FlowEvents,
    /// By VIP index.
    pub vip_traffic: TrafficCounters,
    /// By backend id.
    pub backend_traffic: TrafficCounters,
    /// Listener groups by address.
    pub steer_listeners: SteerListeners,
    /// Sockets by group and worker.
    pub steer_sockets: SteerSockets,
    /// Workers by core.
    pub steer_cores: SteerCores,
    /// Choices by group.
    pub steer_counters: SteerCounts,
    /// Loads by worker. Not pinned: they are of this process.
    pub steer_loads: SteerLoads,
    /// Relieved connections by group. Not pinned, either.
    pub steer_relieved: SteerRelieved,
    /// Sockets that `lb_lookup` names. Not pinned.
    pub lookup_sockets: LookupSockets,
    /// Whose addresses are whose. Not pinned.
    pub lookup_prefixes: LookupPrefixes,
    /// A question and its answer.
    pub why: Why,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    ///
    /// # Errors
    /// When the object lacks one, or its key or value has another size.
    pub fn take(object: &mut Ebpf) -> Result<Self> {
        let vips: Vips = typed(object, names::MAP_VIPS)?;
        let buckets = Words::map(take(object, names::MAP_VIP_BUCKETS)?, names::MAP_VIP_BUCKETS)?;
        let gates = Words::map(take(object, names::MAP_GATES)?, names::MAP_GATES)?;
        let table = Words::map(take(object, names::MAP_GUARD)?, names::MAP_GUARD)?;
        let held = vips.iter().collect::<std::result::Result<_, _>>().map_err(Error::map(names::MAP_VIPS))?;
        Ok(Self {
            meta: typed(object, names::MAP_META)?,
            directory: Directory::adopt(
                buckets,
                typed(object, names::MAP_VIP_ENTRIES)?,
                typed(object, names::MAP_VIP_RANGES)?,
                &held,
            )?,
            vips,
            slots: Slots::map(take(object, names::MAP_SLOTS)?)?,
            backends: typed(object, names::MAP_BACKENDS)?,
            quic: typed(object, names::MAP_QUIC)?,
            quic_servers: typed(object, names::MAP_QUIC_SERVERS)?,
            quic_events: typed(object, names::MAP_QUIC_EVENTS)?,
            sources: typed(object, names::MAP_SOURCES)?,
            source_trees: typed(object, names::MAP_SOURCE_TREES)?,
            source_sets: typed(object, names::MAP_SOURCE_SETS)?,
            limits: typed(object, names::MAP_LIMITS)?,
            flows: Flows::map(take(object, names::MAP_FLOWS)?, take(object, names::MAP_FLOW_KEYS)?)?,
            programs: typed(object, names::MAP_PROGRAMS)?,
            refused_at: typed(object, names::MAP_REFUSED_AT)?,
            links: typed(object, names::MAP_LINKS)?,
            nat: NatMaps::take(object)?,
            guard: Guard::new(gates, table),
            lengths: PrefixLengths(typed(object, names::MAP_LENGTHS)?),
            reasons: typed(object, names::MAP_REASONS)?,
            interfaces: typed(object, names::MAP_INTERFACES)?,
            drops: typed(object, names::MAP_DROPS)?,
            flow_events: typed(object, names::MAP_FLOW_EVENTS)?,
            vip_traffic: typed(object, names::MAP_VIP_TRAFFIC)?,
            backend_traffic: typed(object, names::MAP_BACKEND_TRAFFIC)?,
            steer_listeners: typed(object, names::MAP_STEER_LISTENERS)?,
            steer_sockets: typed(object, names::MAP_STEER_SOCKETS)?,
            steer_cores: typed(object, names::MAP_STEER_CORES)?,
            steer_counters: typed(object, names::MAP_STEER_COUNTERS)?,
            steer_loads: typed(object, names::MAP_STEER_LOADS)?,
            steer_relieved: typed(object, names::MAP_STEER_RELIEVED)?,
            lookup_sockets: typed(object, names::MAP_LOOKUP_SOCKETS)?,
            lookup_prefixes: typed(object, names::MAP_LOOKUP_PREFIXES)?,
            why: typed(object, names::MAP_WHY)?,
        })
    }
}

fn take(object: &mut Ebpf, name: &'static str) -> Result<Map> {
    object.take_map(name).ok_or(Error::Missing { kind: "map", name })
}

/// A map of the object as what it is.
pub(super) fn typed<M: TryFrom<Map, Error = MapError>>(object: &mut Ebpf, name: &'static str) -> Result<M> {
    M::try_from(take(object, name)?).map_err(Error::map(name))
}

/// What the contract says of a map's measures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
}

/// The shape of every map that is pinned. A pin of another shape is another version's.
pub(super) const SHAPES: [Shape; 40] = [
    shape::<u32, lb_abi::meta::Meta>(names::MAP_META, 1),
    shape::<VipKey, VipEntry>(names::MAP_VIPS, bounds::VIP_KEYS_MAX),
    shape::<u32, u64>(names::MAP_VIP_BUCKETS, bounds::VIP_BUCKETS),
    shape::<u32, VipSlot>(names::MAP_VIP_ENTRIES, bounds::VIP_INDEXES),
    shape::<u32, PortRanges>(names::MAP_VIP_RANGES, bounds::VIP_RANGES),
    shape::<u32, u64>(names::MAP_SLOTS, bounds::SLOTS_MAX),
    shape::<u32, BackendEntry>(names::MAP_BACKENDS, bounds::BACKENDS_MAX),
    shape::<u32, QuicEntry>(names::MAP_QUIC, bounds::VIPS_MAX),
    shape::<u32, u64>(names::MAP_QUIC_SERVERS, bounds::QUIC_SERVERS_MAX),
    shape::<u32, u64>(names::MAP_QUIC_EVENTS, QuicEvent::ALL.len() as u32),
    shape::<SourceKey, u32>(names::MAP_SOURCES, bounds::SOURCES_MAX),
    shape::<u32, SourceTree>(names::MAP_SOURCE_TREES, 2 * bounds::VIPS_MAX),
    shape::<u32, u32>(names::MAP_SOURCE_SETS, bounds::VIPS_MAX),
    shape::<u32, lb_abi::limit::Limits>(names::MAP_LIMITS, 1),
    shape::<u32, lb_abi::limit::Meter>(names::MAP_METER, 1),
    shape::<[u8; 16], u64>(names::MAP_NEW_FLOWS, bounds::NEW_FLOWS_MAX),
    shape::<u32, FlowBucket>(names::MAP_FLOWS, bounds::FLOW_BUCKETS),
    shape::<u32, FlowName>(names::MAP_FLOW_KEYS, bounds::FLOW_BUCKETS * BUCKET_LEN as u32),
    shape::<u32, u32>(names::MAP_PROGRAMS, names::CALLS),
    shape::<u32, Inserts>(names::MAP_INSERTS, 1),
    shape::<u32, u32>(names::MAP_REFUSED_AT, 1),
    shape::<FlowKey, NatEntry>(names::MAP_NAT_OPENING, bounds::NAT_OPENING_MAX),
    shape::<FlowKey, NatEntry>(names::MAP_NAT_FLOWS, bounds::NAT_FLOWS_MAX),
    shape::<u32, NatPool>(names::MAP_NAT_POOLS, bounds::VIPS_MAX),
    shape::<u32, [u8; 16]>(names::MAP_NAT_SOURCES, bounds::NAT_SOURCES_MAX),
    shape::<u32, u32>(names::MAP_NAT_POSITION, 1),
    shape::<u32, u64>(names::MAP_NAT_EVENTS, NatEvent::ALL.len() as u32),
    shape::<u32, u64>(names::MAP_GATES, GATE_WORDS),
    shape::<u32, GuardBucket>(names::MAP_GUARD, bounds::GUARD_BUCKETS),
    shape::<u32, Lengths>(names::MAP_LENGTHS, 2 * LISTS as u32),
    shape::<u32, u64>(names::MAP_REASONS, reason::COUNT),
    shape::<u32, InterfaceEntry>(names::MAP_INTERFACES, interface::PLACES),
    shape::<u32, u64>(names::MAP_DROPS, interface::DROPS_LEN),
    shape::<u32, u64>(names::MAP_FLOW_EVENTS, FlowEvent::ALL.len() as u32),
    shape::<u32, Traffic>(names::MAP_VIP_TRAFFIC, bounds::VIPS_MAX),
    shape::<u32, Traffic>(names::MAP_BACKEND_TRAFFIC, bounds::BACKENDS_MAX),
    shape::<SteerKey, SteerEntry>(names::MAP_STEER_LISTENERS, bounds::STEER_LISTENERS_MAX),
    // The kernel takes 4 or 8 as the value size of a socket array: the object decides.
    Shape {
        name: names::MAP_STEER_SOCKETS,
        key_size: 4,
        value_size: 0,
        max_entries: bounds::STEER_SOCKETS_MAX,
    },
    shape::<u32, u32>(names::MAP_STEER_CORES, bounds::CORES_MAX),
    shape::<u32, SteerCounters>(names::MAP_STEER_COUNTERS, bounds::STEER_LISTENERS_MAX),
];

const fn shape<K, V>(name: &'static str, max_entries: u32) -> Shape {
    Shape { name, key_size: size_of::<K>() as u32, value_size: size_of::<V>() as u32, max_entries }
}
