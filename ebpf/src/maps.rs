//! Map statics. Names, keys and values are the contract of `lb_abi::names`.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, CpuMap, HashMap, LpmTrie, PerCpuArray, ProgramArray, ReusePortSockArray, SockMap},
};
use lb_abi::{
    backend::BackendEntry,
    bounds,
    counter::{Budget, FlowEvent, Traffic},
    flow::{FlowKey, FlowRecord, Inserts},
    hop::HopEntry,
    link::LinkEntry,
    lookup::LookupEntry,
    meta::Meta,
    names,
    probe::ProbeEntry,
    reason,
    spread::Spread,
    steer::{SteerCounters, SteerEntry, SteerKey},
    vip::{VipEntry, VipKey},
};

#[map]
pub(crate) static META: Array<Meta> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static VIPS: HashMap<VipKey, VipEntry> = HashMap::with_max_entries(bounds::VIP_KEYS_MAX, 0);
/// Written by control through a memory mapping: one 64-bit store per changed slot.
#[map]
pub(crate) static SLOTS: Array<u64> = Array::with_max_entries(bounds::SLOTS_MAX, BPF_F_MMAPABLE);
#[map]
pub(crate) static BACKENDS: Array<BackendEntry> = Array::with_max_entries(bounds::BACKENDS_MAX, 0);
#[map]
pub(crate) static HOPS: PerCpuArray<HopEntry> = PerCpuArray::with_max_entries(bounds::BACKENDS_MAX, 0);
#[map]
pub(crate) static LINKS: HashMap<u32, LinkEntry> = HashMap::with_max_entries(bounds::LINKS_MAX, 0);
/// Room for a question to the routing table, and its answer.
#[map]
pub(crate) static QUESTION: PerCpuArray<[u64; 8]> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static ANSWERS: PerCpuArray<Budget> = PerCpuArray::with_max_entries(1, 0);
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
/// Preallocated (no `BPF_F_NO_PREALLOC`) and not LRU: full means refuse.
#[map]
pub(crate) static FLOWS: HashMap<FlowKey, FlowRecord> = HashMap::with_max_entries(bounds::FLOWS_MAX, 0);
#[map]
pub(crate) static INSERTS: PerCpuArray<Inserts> = PerCpuArray::with_max_entries(1, 0);
/// Shared by all cores; written at most once a tick by each, and only while something is refused.
#[map]
pub(crate) static REFUSED_AT: Array<u32> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static DENY_V4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(bounds::DENY_MAX, 0);
#[map]
pub(crate) static DENY_V6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(bounds::DENY_MAX, 0);
#[map]
pub(crate) static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(reason::COUNT, 0);
#[map]
pub(crate) static FLOW_EVENTS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(FlowEvent::ALL.len() as u32, 0);
#[map]
pub(crate) static VIP_TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(bounds::VIPS_MAX, 0);
#[map]
pub(crate) static BACKEND_TRAFFIC: PerCpuArray<Traffic> =
    PerCpuArray::with_max_entries(bounds::BACKENDS_MAX, 0);
#[map]
pub(crate) static LOOKUP_PREFIXES: LpmTrie<[u8; 16], LookupEntry> =
    LpmTrie::with_max_entries(bounds::LOOKUP_PREFIXES_MAX, 0);
#[map]
pub(crate) static LOOKUP_SOCKETS: SockMap = SockMap::with_max_entries(bounds::STEER_SOCKETS_MAX, 0);
#[map]
pub(crate) static PROBES: Array<ProbeEntry> = Array::with_max_entries(bounds::PROBES_MAX, 0);
#[map]
pub(crate) static PROBE_PORTS: Array<u32> = Array::with_max_entries(1 << 16, 0);
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
