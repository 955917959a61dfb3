//! Names of programs and maps, as they stand in the object and under bpffs.

/// XDP program on the interfaces of the load balancer.
pub const PROGRAM_INGRESS: &str = "lb_ingress";
/// XDP program on the interface of a backend that has no tunnel device.
pub const PROGRAM_DECAP: &str = "lb_decap";
/// XDP program that lets everything pass: for the far end of a veth that XDP sends out of, whose driver wakes the
/// receiver of an `XDP_TX` only where a program is attached; and the floor of what a program costs.
pub const PROGRAM_PASS: &str = "lb_pass";
/// XDP program that `lb_ingress` calls for the SYNs of a flood.
pub const PROGRAM_COOKIE: &str = "lb_cookie";
/// sk_reuseport program of every listener group.
pub const PROGRAM_STEER: &str = "lb_steer";
/// sk_lookup program of the network namespace: see [`crate::lookup`].
pub const PROGRAM_LOOKUP: &str = "lb_lookup";
/// Traffic-control program at egress: see [`crate::probe`].
pub const PROGRAM_PROBE_OUT: &str = "lb_probe_out";
/// The same at ingress.
pub const PROGRAM_PROBE_IN: &str = "lb_probe_in";

/// `Array<Meta>`, one entry.
pub const MAP_META: &str = "META";
/// `HashMap<VipKey, VipEntry>`.
pub const MAP_VIPS: &str = "VIPS";
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
/// `HashMap<FlowKey, FlowRecord>`.
pub const MAP_FLOWS: &str = "FLOWS";
/// `PerCpuArray<Inserts>`, one entry.
pub const MAP_INSERTS: &str = "INSERTS";
/// `Array<u32>`, one entry: tick at which a flow last could not be recorded. Written by packets, read by control.
pub const MAP_REFUSED_AT: &str = "REFUSED_AT";
/// `ProgramArray` of what `lb_ingress` calls.
pub const MAP_PROGRAMS: &str = "PROGRAMS";
/// Index of [`PROGRAM_COOKIE`] in it.
pub const CALL_COOKIE: u32 = 1;
/// Entries of it.
pub const CALLS: u32 = 3;
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
/// `LpmTrie<[u8; 4], u32>` of denied sources.
pub const MAP_DENY_V4: &str = "DENY_V4";
/// `LpmTrie<[u8; 16], u32>` of denied sources.
pub const MAP_DENY_V6: &str = "DENY_V6";
/// `PerCpuArray<u64>` by [`crate::reason::Reason`].
pub const MAP_REASONS: &str = "REASONS";
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
