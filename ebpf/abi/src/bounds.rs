//! How large each map is. Every queue and table has its bound here, so that memory is known before the first packet.

/// Distinct (address, port, protocol) keys over all VIPs.
pub const VIP_KEYS_MAX: u32 = 4096;
/// Buckets of the VIP directory: four times the keys, so that hardly one has more than four.
pub const VIP_BUCKETS: u32 = 4 * VIP_KEYS_MAX;
/// Entries of the VIP directory: twice the keys, so that all can change before an index comes around again.
pub const VIP_INDEXES: u32 = 2 * VIP_KEYS_MAX;
/// Sets of port ranges: one for each address, prefix and protocol that has any. Twice as many as may be in use, as
/// [`VIP_INDEXES`].
pub const VIP_RANGES: u32 = 1024;
/// VIPs, that is counters and names; one VIP may own several keys.
pub const VIPS_MAX: u32 = 512;
/// Backends over all pools that XDP knows. Id 0 is never given out: a zeroed slot names no backend.
pub const BACKENDS_MAX: u32 = 4096;
/// Server ids in QUIC connection ids, 0 included, which is nobody's: as many as there are backends.
pub const QUIC_SERVERS_MAX: u32 = BACKENDS_MAX;
/// Prefixes of clients with a pool of their own, over all VIPs.
pub const SOURCE_PREFIXES_MAX: u32 = 262_144;
/// The same with their markers, twice, as one set is filled while another is read. Allocated as used.
pub const SOURCES_MAX: u32 = 4 * SOURCE_PREFIXES_MAX;
/// Slots of one pool's table: a prime, so that Maglev's permutations reach every slot (Maglev, NSDI'16, 3.4).
pub const TABLE_LEN: u32 = 65_537;
/// Tables, one per pool with a VIP.
pub const TABLES_MAX: u32 = 64;
/// All slots, in one memory-mapped array.
pub const SLOTS_MAX: u32 = TABLE_LEN * TABLES_MAX;
/// Buckets of four flow records; they exist only for slots that are moving. Made for 262 144 records, as they are
/// seldom more than half full. Preallocated, never evicted: full means refuse.
pub const FLOW_BUCKETS: u32 = 131_072;
/// Sources whose new flows are counted; the one not seen for longest is forgotten first.
pub const NEW_FLOWS_MAX: u32 = 131_072;
/// Records that one core begins in one tick (134 ms), tried or written: some 60 000 a second, 2 % of a core.
pub const INSERTS_PER_TICK: u32 = 8192;
/// Entries of half-open translated flows, two for each. The oldest give way, so a flood ends nobody's established flow.
pub const NAT_OPENING_MAX: u32 = 65_536;
/// Entries of established translated flows, two for each. Not preallocated, as most boxes translate nothing; never
/// evicted: full means that a flow stays half-open.
pub const NAT_FLOWS_MAX: u32 = 1_048_576;
/// Addresses that sources are translated to, over all VIPs.
pub const NAT_SOURCES_MAX: u32 = 1024;
/// Denied and allowed prefixes, both families together.
pub const DENY_MAX: u32 = 1 << 20;
/// Buckets of seven prefixes: 1.75 times as much room as there may be prefixes.
pub const GUARD_BUCKETS: u32 = DENY_MAX / 4;
/// Health probes that go a VIP's way: one for each backend.
pub const PROBES_MAX: u32 = BACKENDS_MAX;
/// Ports that a probe may be answered on: all of TCP, then all of UDP.
pub const PROBE_PORTS: u32 = 2 << 16;
/// ICMP errors of our own per core and tick (see [`crate::slot::TICK_SHIFT`]): some 1000 in a second.
pub const ANSWERS_PER_TICK: u32 = 128;
/// SYNs for no VIP that one core leaves to the kernel in one tick, some 1900 in a second, before it looks whether XDP
/// may answer: half a percent of a core's time.
pub const SYNS_PER_TICK: u32 = 256;
/// Words of a bit for each port.
pub const SPREAD_PORT_WORDS: u32 = (1 << 16) / 32;
/// Packets that wait for a core that they are spread to; beyond it they are dropped, as by a full receive queue.
pub const SPREAD_QUEUE: u32 = 2048;
/// Interfaces that the packet path knows more of than the routing table says.
pub const LINKS_MAX: u32 = 1024;
/// Listener addresses that `lb_steer` serves.
pub const STEER_LISTENERS_MAX: u32 = 256;
/// Prefixes that `lb_lookup` knows.
pub const LOOKUP_PREFIXES_MAX: u32 = 4096;
/// Workers, that is sockets per listener address.
pub const WORKERS_MAX: u32 = 256;
/// Sockets in the reuseport array: listener index * [`WORKERS_MAX`] + worker.
pub const STEER_SOCKETS_MAX: u32 = STEER_LISTENERS_MAX * WORKERS_MAX;
/// Cores in the core-to-worker map.
pub const CORES_MAX: u32 = 1024;
