//! Names of programs and maps, as they stand in the object and under bpffs.

/// XDP program on the interfaces of the load balancer.
pub const PROGRAM_INGRESS: &str = "lb_ingress";
/// XDP program on the interface of a backend that has no tunnel device.
pub const PROGRAM_DECAP: &str = "lb_decap";
/// XDP program that lets everything pass: for the far end of a veth that XDP sends out of, whose driver wakes the
/// receiver of an `XDP_TX` only where a program is attached; and the floor of what a program costs.
pub const PROGRAM_PASS: &str = "lb_pass";
/// XDP program that `lb_ingress` calls where addresses are translated.
pub const PROGRAM_NAT: &str = "lb_nat";
/// XDP program that `lb_ingress` and `lb_nat` call for the SYNs of a flood.
pub const PROGRAM_COOKIE: &str = "lb_cookie";
/// sk_reuseport program of every listener group.
pub const PROGRAM_STEER: &str = "lb_steer";
/// sk_lookup program of the network namespace: see [`crate::lookup`].
pub const PROGRAM_LOOKUP: &str = "lb_lookup";
/// Traffic-control program at egress: see [`crate::probe`].
pub const PROGRAM_PROBE_OUT: &str = "lb_probe_out";
/// The same at ingress.
pub const PROGRAM_PROBE_IN: &str = "lb_probe_in";
/// XDP program that does with a packet what `lb_ingress` would, changes nothing, and says what it did. Never
/// attached: control runs it (`BPF_PROG_TEST_RUN`).
pub const PROGRAM_WHY: &str = "lb_why";
/// XDP programs that do what `lb_ingress` does and show packets to a capture, by their places in
/// [`MAP_CAPTURE_PROGRAM`]. Never attached: `lb_ingress` calls the first one while a capture runs, each the next.
pub const PROGRAMS_CAPTURE: [&str; 3] = ["lb_capture", "lb_capture_walk", "lb_capture_show"];

/// `Array<Meta>`, one entry.
pub const MAP_META: &str = "META";
/// `HashMap<VipKey, VipEntry>`.
pub const MAP_VIPS: &str = "VIPS";
/// `Array<u64>` of [`crate::directory::Bucket`], `BPF_F_MMAPABLE`.
pub const MAP_VIP_BUCKETS: &str = "VIP_BUCKETS";
/// `Array<VipSlot>` by index, `BPF_F_MMAPABLE` so that each is one cache line.
pub const MAP_VIP_ENTRIES: &str = "VIP_ENTRIES";
/// `Array<PortRanges>` by [`crate::directory::VipSlot::ranges`].
pub const MAP_VIP_RANGES: &str = "VIP_RANGES";
/// `Array<u64>` of [`crate::slot::Slot`], `BPF_F_MMAPABLE`; table t begins at `t * TABLE_LEN`.
pub const MAP_SLOTS: &str = "SLOTS";
/// `Array<BackendEntry>` by backend id.
pub const MAP_BACKENDS: &str = "BACKENDS";
/// `PerCpuArray<HopEntry>` by backend id.
pub const MAP_HOPS: &str = "HOPS";
/// `HashMap<u32, LinkEntry>` by interface index.
pub const MAP_LINKS: &str = "LINKS";
/// `PerCpuArray<Budget>`, one entry: ICMP errors of our own.
pub const MAP_ANSWERS: &str = "ANSWERS";
/// `Array<QuicEntry>` by VIP index.
pub const MAP_QUIC: &str = "QUIC";
/// `Array<u64>` of [`crate::quic::Server`], by server id.
pub const MAP_QUIC_SERVERS: &str = "QUIC_SERVERS";
/// `PerCpuArray<u64>` by [`crate::quic::QuicEvent`].
pub const MAP_QUIC_EVENTS: &str = "QUIC_EVENTS";
/// `HashMap<SourceKey, u32>`: first slot of the table, or [`crate::source::OWN`].
pub const MAP_SOURCES: &str = "SOURCES";
/// `Array<SourceTree>` by set.
pub const MAP_SOURCE_TREES: &str = "SOURCE_TREES";
/// `Array<u32>` by VIP index: the set that packets read.
pub const MAP_SOURCE_SETS: &str = "SOURCE_SETS";
/// `Array<Limits>`, one entry.
pub const MAP_LIMITS: &str = "LIMITS";
/// `PerCpuArray<Meter>`, one entry.
pub const MAP_METER: &str = "METER";
/// `LruHashMap<[u8; 16], u64>` of [`crate::limit::Allowance`], by source: the address in IPv4, the first half in IPv6.
pub const MAP_NEW_FLOWS: &str = "NEW_FLOWS";
/// `HashMap<FlowKey, FlowRecord>`.
pub const MAP_FLOWS: &str = "FLOWS";
/// What flow a place of [`MAP_FLOWS`] is of.
pub const MAP_FLOW_KEYS: &str = "FLOW_KEYS";
/// `PerCpuArray<Inserts>`, one entry.
pub const MAP_INSERTS: &str = "INSERTS";
/// `Array<u32>`, one entry: tick at which a flow last could not be recorded. Written by packets, read by control.
pub const MAP_REFUSED_AT: &str = "REFUSED_AT";
/// `ProgramArray` of what `lb_ingress` calls, and what that calls.
pub const MAP_PROGRAMS: &str = "PROGRAMS";
/// Index of [`PROGRAM_NAT`] in it.
pub const CALL_NAT: u32 = 0;
/// Index of [`PROGRAM_COOKIE`] in it.
pub const CALL_COOKIE: u32 = 1;
/// Entries of it.
pub const CALLS: u32 = 2;
/// `LruHashMap<FlowKey, NatEntry>`: translated flows, half-open.
pub const MAP_NAT_OPENING: &str = "NAT_OPENING";
/// `HashMap<FlowKey, NatEntry>`: translated flows, established.
pub const MAP_NAT_FLOWS: &str = "NAT_FLOWS";
/// `Array<NatPool>` by VIP index.
pub const MAP_NAT_POOLS: &str = "NAT_POOLS";
/// `Array<[u8; 16]>`: addresses that sources are translated to.
pub const MAP_NAT_SOURCES: &str = "NAT_SOURCES";
/// `PerCpuArray<u32>`, one entry: each core's walk through its part of the ports.
pub const MAP_NAT_POSITION: &str = "NAT_POSITION";
/// `PerCpuArray<u64>` by [`crate::nat::NatEvent`].
pub const MAP_NAT_EVENTS: &str = "NAT_EVENTS";
/// `Array<u64>`: [`crate::guard::GATE_WORDS`] words of 64 bits, `BPF_F_MMAPABLE`.
pub const MAP_GATES: &str = "GATES";
/// `Array<GuardBucket>`, `BPF_F_MMAPABLE`.
pub const MAP_GUARD: &str = "GUARD";
/// `Array<Lengths>`, two for each list.
pub const MAP_LENGTHS: &str = "LENGTHS";
/// `PerCpuArray<Budget>`, one entry: SYNs for no VIP.
pub const MAP_SYNS: &str = "SYNS";
/// `Array<Spread>`, one entry.
pub const MAP_SPREAD: &str = "SPREAD";
/// `Array<u32>` by number of a worker: its core.
pub const MAP_SPREAD_CORES: &str = "SPREAD_CORES";
/// `Array<u32>`: one bit for each port, set where a listener has it (see [`crate::spread::port_bit`]).
pub const MAP_SPREAD_PORTS: &str = "SPREAD_PORTS";
/// `CpuMap` by core. Its length is the loader's: no more than the kernel was built for.
pub const MAP_SPREAD_CPUS: &str = "SPREAD_CPUS";
/// `PerCpuArray<u64>` by [`crate::reason::Reason`].
pub const MAP_REASONS: &str = "REASONS";
/// `Array<InterfaceEntry>` by [`crate::interface::place`].
pub const MAP_INTERFACES: &str = "INTERFACES";
/// `PerCpuArray<u64>` by [`crate::interface::counter`]: dropped packets.
pub const MAP_DROPS: &str = "DROPS";
/// `PerCpuArray<u64>` by [`crate::counter::FlowEvent`].
pub const MAP_FLOW_EVENTS: &str = "FLOW_EVENTS";
/// `PerCpuArray<Traffic>` by VIP index.
pub const MAP_VIP_TRAFFIC: &str = "VIP_TRAFFIC";
/// `PerCpuArray<Traffic>` by backend id.
pub const MAP_BACKEND_TRAFFIC: &str = "BACKEND_TRAFFIC";
/// `LpmTrie<[u8; 16], LookupEntry>` by local address.
pub const MAP_LOOKUP_PREFIXES: &str = "LOOKUP_PREFIXES";
/// `SockMap` of the sockets of groups that [`MAP_LOOKUP_PREFIXES`] names, at the places that they would have in
/// [`MAP_STEER_SOCKETS`]: the kernel lets a socket be in one of the two, and `lb_lookup` reads this kind only.
pub const MAP_LOOKUP_SOCKETS: &str = "LOOKUP_SOCKETS";
/// `Array<ProbeEntry>` by number of the probe.
pub const MAP_PROBES: &str = "PROBES";
/// `Array<u32>` by local port: number of the probe that expects an answer there + 1, or 0.
pub const MAP_PROBE_PORTS: &str = "PROBE_PORTS";
/// `Array<activity::Page>` by [`crate::activity::place`]: which slots were read lately. Not pinned.
pub const MAP_ACTIVITY: &str = "ACTIVITY";
/// `HashMap<SteerKey, SteerEntry>` by listener address.
pub const MAP_STEER_LISTENERS: &str = "STEER_LISTENERS";
/// `ReusePortSockArray` by `SteerEntry::listener * WORKERS_MAX + worker`.
pub const MAP_STEER_SOCKETS: &str = "STEER_SOCKETS";
/// `Array<u32>` by worker: its load, 0 to 100.
pub const MAP_STEER_LOADS: &str = "STEER_LOADS";
/// `PerCpuArray<u64>` by listener index: connections that went to another worker than their own, which lagged.
pub const MAP_STEER_RELIEVED: &str = "STEER_RELIEVED";
/// `Array<u32>` by core: worker index + 1, or 0 where the core has no worker.
pub const MAP_STEER_CORES: &str = "STEER_CORES";
/// `PerCpuArray<SteerCounters>` by listener index.
pub const MAP_STEER_COUNTERS: &str = "STEER_COUNTERS";
/// `Array<Why>`, one entry: a question and its answer. Not pinned.
pub const MAP_WHY: &str = "WHY";
/// `ProgArray` of [`PROGRAMS_CAPTURE`]; the first is there while a capture runs. Not pinned, like all maps of a capture.
pub const MAP_CAPTURE_PROGRAM: &str = "CAPTURE_PROGRAM";
/// `Array<CaptureFilter>`, one entry.
pub const MAP_CAPTURE_FILTER: &str = "CAPTURE_FILTER";
/// `RingBuf` of [`crate::capture::CaptureRecord`]s with the bytes of their frames.
pub const MAP_CAPTURE_RING: &str = "CAPTURE_RING";
/// `PerCpuArray<CaptureScratch>`, one entry.
pub const MAP_CAPTURE_SCRATCH: &str = "CAPTURE_SCRATCH";
/// `PerCpuArray<CaptureCounters>`, one entry.
pub const MAP_CAPTURE_COUNTERS: &str = "CAPTURE_COUNTERS";
/// `Array<u64>`, one entry: see [`crate::capture::spend`].
pub const MAP_CAPTURE_BUDGET: &str = "CAPTURE_BUDGET";
