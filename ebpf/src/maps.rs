//! Map statics. Names, keys and values are the contract of `lb_abi::names`.

pub(crate) mod nat;

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{
        Array, CpuMap, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, ReusePortSockArray, RingBuf,
        SockMap,
    },
};
use lb_abi::{
    activity,
    backend::BackendEntry,
    bounds,
    capture::{self, CaptureCounters, CaptureFilter, CaptureScratch},
    counter::{Budget, FlowEvent, Traffic},
    directory::{PortRanges, VipSlot},
    flow::{BUCKET_LEN, FlowBucket, FlowKey, FlowName, Inserts},
    guard::{GATE_WORDS, GuardBucket},
    hop::HopEntry,
    interface::{self, InterfaceEntry},
    lengths::{LISTS, Lengths},
    limit::{Limits, Meter},
    link::LinkEntry,
    lookup::LookupEntry,
    meta::Meta,
    names,
    probe::ProbeEntry,
    quic::{QuicEntry, QuicEvent},
    reason,
    source::{SourceKey, SourceTree},
    spread::Spread,
    steer::{SteerCounters, SteerEntry, SteerKey},
    trace::Why,
    vip::{VipEntry, VipKey},
};
use lb_ebpf::route::Route;

/// A core's room for a packet's walk, in the maps that have rooms.
pub(crate) const ROOM: u32 = 0;
/// Its room for `lb_why`, whose test run packets may interrupt before Linux 6.2.
pub(crate) const ROOM_WHY: u32 = 1;
const ROOMS: u32 = 2;

#[map]
pub(crate) static META: Array<Meta> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static VIPS: HashMap<VipKey, VipEntry> = HashMap::with_max_entries(bounds::VIP_KEYS_MAX, 0);
/// Written by control through a memory mapping: one 64-bit store publishes an entry.
#[map]
pub(crate) static VIP_BUCKETS: Array<u64> = Array::with_max_entries(bounds::VIP_BUCKETS, BPF_F_MMAPABLE);
/// Mappable, as only then its values begin on a page and each is one cache line.
#[map]
pub(crate) static VIP_ENTRIES: Array<VipSlot> = Array::with_max_entries(bounds::VIP_INDEXES, BPF_F_MMAPABLE);
#[map]
pub(crate) static VIP_RANGES: Array<PortRanges> = Array::with_max_entries(bounds::VIP_RANGES, 0);
/// Written by control through a memory mapping: one 64-bit store per changed slot.
#[map]
pub(crate) static SLOTS: Array<u64> = Array::with_max_entries(bounds::SLOTS_MAX, BPF_F_MMAPABLE);
#[map]
pub(crate) static BACKENDS: Array<BackendEntry> = Array::with_max_entries(bounds::BACKENDS_MAX, 0);
#[map]
pub(crate) static HOPS: PerCpuArray<HopEntry> = PerCpuArray::with_max_entries(bounds::BACKENDS_MAX, 0);
#[map]
pub(crate) static QUIC: Array<QuicEntry> = Array::with_max_entries(bounds::VIPS_MAX, 0);
#[map]
pub(crate) static QUIC_SERVERS: Array<u64> = Array::with_max_entries(bounds::QUIC_SERVERS_MAX, 0);
#[map]
pub(crate) static QUIC_EVENTS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(QuicEvent::ALL.len() as u32, 0);
/// Allocated as used: programs only read it.
#[map]
pub(crate) static SOURCES: HashMap<SourceKey, u32> =
    HashMap::with_max_entries(bounds::SOURCES_MAX, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static SOURCE_TREES: Array<SourceTree> = Array::with_max_entries(2 * bounds::VIPS_MAX, 0);
#[map]
pub(crate) static SOURCE_SETS: Array<u32> = Array::with_max_entries(bounds::VIPS_MAX, 0);
#[map]
pub(crate) static LIMITS: Array<Limits> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static METER: PerCpuArray<Meter> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static NEW_FLOWS: LruHashMap<[u8; 16], u64> =
    LruHashMap::with_max_entries(bounds::NEW_FLOWS_MAX, 0);
#[map]
pub(crate) static LINKS: HashMap<u32, LinkEntry> = HashMap::with_max_entries(bounds::LINKS_MAX, 0);
/// The route that is asked for.
#[map]
pub(crate) static ROUTE: PerCpuArray<MaybeUninit<Route>> = PerCpuArray::with_max_entries(ROOMS, 0);
/// Room for a question to the routing table, and its answer.
#[map]
pub(crate) static QUESTION: PerCpuArray<[u64; 8]> = PerCpuArray::with_max_entries(ROOMS, 0);
#[map]
pub(crate) static ANSWERS: PerCpuArray<Budget> = PerCpuArray::with_max_entries(1, 0);
/// Key of the flow whose slot moves: room for one of its size is not on the stack.
#[map]
pub(crate) static MOVING: PerCpuArray<FlowKey> = PerCpuArray::with_max_entries(ROOMS, 0);
#[map]
pub(crate) static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(names::CALLS, 0);
#[map]
pub(crate) static SYNS: PerCpuArray<Budget> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static SPREAD: Array<Spread> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static SPREAD_CORES: Array<u32> = Array::with_max_entries(bounds::WORKERS_MAX, 0);
#[map]
pub(crate) static SPREAD_PORTS: Array<u32> = Array::with_max_entries(bounds::SPREAD_PORT_WORDS, 0);
/// As long as the machine has cores: the loader says it.
#[map]
pub(crate) static SPREAD_CPUS: CpuMap = CpuMap::with_max_entries(1, 0);
/// Mappable: a bucket is one cache line, and control reads them all as memory.
#[map]
pub(crate) static FLOWS: Array<FlowBucket> = Array::with_max_entries(bounds::FLOW_BUCKETS, BPF_F_MMAPABLE);
#[map]
pub(crate) static FLOW_KEYS: Array<FlowName> =
    Array::with_max_entries(bounds::FLOW_BUCKETS * BUCKET_LEN as u32, BPF_F_MMAPABLE);
#[map]
pub(crate) static INSERTS: PerCpuArray<Inserts> = PerCpuArray::with_max_entries(1, 0);
/// Shared by all cores; written at most once a tick by each, and only while something is refused.
#[map]
pub(crate) static REFUSED_AT: Array<u32> = Array::with_max_entries(1, 0);
/// Written by control through a memory mapping, like `SLOTS`.
#[map]
pub(crate) static GATES: Array<u64> = Array::with_max_entries(GATE_WORDS, BPF_F_MMAPABLE);
/// The same; a bucket is one cache line.
#[map]
pub(crate) static GUARD: Array<GuardBucket> = Array::with_max_entries(bounds::GUARD_BUCKETS, BPF_F_MMAPABLE);
#[map]
pub(crate) static LENGTHS: Array<Lengths> = Array::with_max_entries(2 * LISTS as u32, 0);
#[map]
pub(crate) static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(reason::COUNT, 0);
#[map]
pub(crate) static INTERFACES: Array<InterfaceEntry> = Array::with_max_entries(interface::PLACES, 0);
#[map]
pub(crate) static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(interface::DROPS_LEN, 0);
#[map]
pub(crate) static FLOW_EVENTS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(FlowEvent::ALL.len() as u32, 0);
#[map]
pub(crate) static VIP_TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(bounds::VIPS_MAX, 0);
#[map]
pub(crate) static BACKEND_TRAFFIC: PerCpuArray<Traffic> =
    PerCpuArray::with_max_entries(bounds::BACKENDS_MAX, 0);
#[map]
pub(crate) static ACTIVITY: Array<activity::Page> = Array::with_max_entries(activity::PAGES, 0);
#[map]
pub(crate) static LOOKUP_PREFIXES: LpmTrie<[u8; 16], LookupEntry> =
    LpmTrie::with_max_entries(bounds::LOOKUP_PREFIXES_MAX, 0);
#[map]
pub(crate) static LOOKUP_SOCKETS: SockMap = SockMap::with_max_entries(bounds::STEER_SOCKETS_MAX, 0);
#[map]
pub(crate) static PROBES: Array<ProbeEntry> = Array::with_max_entries(bounds::PROBES_MAX, 0);
#[map]
pub(crate) static PROBE_PORTS: Array<u32> = Array::with_max_entries(bounds::PROBE_PORTS, 0);
#[map]
pub(crate) static STEER_LISTENERS: HashMap<SteerKey, SteerEntry> =
    HashMap::with_max_entries(bounds::STEER_LISTENERS_MAX, 0);
#[map]
pub(crate) static STEER_SOCKETS: ReusePortSockArray =
    ReusePortSockArray::with_max_entries(bounds::STEER_SOCKETS_MAX, 0);
#[map]
pub(crate) static STEER_CORES: Array<u32> = Array::with_max_entries(bounds::CORES_MAX, 0);
#[map]
pub(crate) static STEER_LOADS: Array<u32> = Array::with_max_entries(bounds::WORKERS_MAX, 0);
#[map]
pub(crate) static STEER_RELIEVED: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(bounds::STEER_LISTENERS_MAX, 0);
#[map]
pub(crate) static STEER_COUNTERS: PerCpuArray<SteerCounters> =
    PerCpuArray::with_max_entries(bounds::STEER_LISTENERS_MAX, 0);
#[map]
pub(crate) static WHY: Array<Why> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static CAPTURE_PROGRAM: ProgramArray =
    ProgramArray::with_max_entries(names::PROGRAMS_CAPTURE.len() as u32, 0);
#[map]
pub(crate) static CAPTURE_FILTER: Array<CaptureFilter> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static CAPTURE_RING: RingBuf = RingBuf::with_byte_size(capture::RING_BYTES, 0);
#[map]
pub(crate) static CAPTURE_SCRATCH: PerCpuArray<CaptureScratch> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static CAPTURE_COUNTERS: PerCpuArray<CaptureCounters> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static CAPTURE_BUDGET: Array<u64> = Array::with_max_entries(1, 0);
