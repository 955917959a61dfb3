//! How large each map is. Every queue and table has its bound here, so that memory is known before the first packet.

/// Distinct (address, port, protocol) keys over all VIPs.
pub const VIP_KEYS_MAX: u32 = 4096;
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
/// Flow records; they exist only for slots that are moving. Preallocated, never evicted: full means refuse.
pub const FLOWS_MAX: u32 = 262_144;
/// Sources whose new flows are counted; the one not seen for longest is forgotten first.
pub const NEW_FLOWS_MAX: u32 = 131_072;
/// Records that one core begins in one tick (134 ms), tried or written: some 60 000 a second, 2 % of a core.
pub const INSERTS_PER_TICK: u32 = 8192;
/// Deny-list prefixes per address family.
pub const DENY_MAX: u32 = 65_536;
/// Health probes that go a VIP's way: one for each backend.
pub const PROBES_MAX: u32 = BACKENDS_MAX;
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
