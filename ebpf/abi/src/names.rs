//! Names of programs and maps, as they stand in the object and under bpffs.

/// XDP program on the interfaces of the load balancer.
pub const PROGRAM_INGRESS: &str = "lb_ingress";
/// XDP program on the interface of a backend that has no tunnel device.
pub const PROGRAM_DECAP: &str = "lb_decap";
/// XDP program that lets everything pass: for the far end of a veth that XDP sends out of, whose driver wakes the
/// receiver of an `XDP_TX` only where a program is attached; and the floor of what a program costs.
pub const PROGRAM_PASS: &str = "lb_pass";
/// sk_reuseport program of every listener group.
pub const PROGRAM_STEER: &str = "lb_steer";
/// XDP program that does with a packet what `lb_ingress` would, changes nothing, and says what it did. Never
/// attached: control runs it (`BPF_PROG_TEST_RUN`).
pub const PROGRAM_WHY: &str = "lb_why";
/// XDP program that does what `lb_ingress` does and shows packets to a capture. Never attached: `lb_ingress` calls it
/// while a capture runs.
pub const PROGRAM_CAPTURE: &str = "lb_capture";

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
/// `HashMap<FlowKey, FlowRecord>`.
pub const MAP_FLOWS: &str = "FLOWS";
/// `LpmTrie<[u8; 4], u32>` of denied sources.
pub const MAP_DENY_V4: &str = "DENY_V4";
/// `LpmTrie<[u8; 16], u32>` of denied sources.
pub const MAP_DENY_V6: &str = "DENY_V6";
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
/// `Array<activity::Page>` by [`crate::activity::place`]: which slots were read lately. Not pinned.
pub const MAP_ACTIVITY: &str = "ACTIVITY";
/// `HashMap<SteerKey, SteerEntry>` by listener address.
pub const MAP_STEER_LISTENERS: &str = "STEER_LISTENERS";
/// `ReusePortSockArray` by `SteerEntry::listener * WORKERS_MAX + worker`.
pub const MAP_STEER_SOCKETS: &str = "STEER_SOCKETS";
/// `Array<u32>` by core: worker index + 1, or 0 where the core has no worker.
pub const MAP_STEER_CORES: &str = "STEER_CORES";
/// `PerCpuArray<SteerCounters>` by listener index.
pub const MAP_STEER_COUNTERS: &str = "STEER_COUNTERS";
/// `Array<Why>`, one entry: a question and its answer. Not pinned.
pub const MAP_WHY: &str = "WHY";
/// `ProgArray`, one entry: `lb_capture` while a capture runs. Not pinned, like all maps of a capture.
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
