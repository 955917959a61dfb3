//! Rows through `BPF_PROG_TEST_RUN` on the built object.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod, TestRun as _, TestRunOptions,
    maps::{
        Array, CpuMap, HashMap, LpmTrie, MapData, PerCpuArray, PerCpuValues, ProgramArray, lpm_trie::Key,
    },
    programs::{Xdp, XdpMode},
};
use lb_abi::{
    backend::BackendEntry,
    bounds::SPREAD_QUEUE,
    counter::{Budget, FlowEvent, Traffic},
    flow::{FlowKey, FlowRecord},
    hop::HopEntry,
    link::LinkEntry,
    meta::Meta,
    names,
    reason::{self, Reason},
    slot::Slot,
    spread::{Spread, port_bit},
    steer::{SteerEntry, SteerKey},
    vip::{VipEntry, VipKey},
};
use lb_ebpf::verdict::Verdict;
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::{Domain, Protocol, Socket, Type};

use crate::xdp::{
    namespace,
    row::{self, Left, Moved, Program, Row},
    world::{FLOWS_LEN, LB0, LB1, LB1_MAC, NOBODY, TABLE_LEN, VIP, World, sockets},
};

/// Metadata in front of every frame: the kernel's headroom is zero there, and it is as much as 6.1 takes. It moves
/// along with the frame's first byte, and leaves its bytes where headers are written.
const GARBAGE: [u8; 32] = [0xa5; 32];

/// Connections that may wait at each of [`SOCKETS`].
pub const BACKLOG: i32 = 16;

/// Where `cargo xtask build-ebpf` puts the object.
pub fn object() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/lb.o")
}

/// Why the object cannot be tested on this host, if it cannot. Under CI that is a failure.
pub fn unavailable() -> Option<String> {
    let why = if !object().exists() {
        format!("no object at {} (cargo xtask build-ebpf)", object().display())
    } else if !std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
    {
        "not root: programs cannot be loaded".to_owned()
    } else {
        return None;
    };
    assert!(std::env::var_os("CI").is_none(), "cannot run under CI: {why}");
    Some(why)
}

/// The object, loaded in a namespace of the calling thread, with `lb_ingress` attached to `lb0` natively.
#[derive(Debug)]
pub struct Bench {
    ebpf: Ebpf,
    sockets: Vec<Socket>,
}

/// All counters at one moment, summed over cores.
struct Counters {
    reasons: Vec<u64>,
    events: Vec<u64>,
    vip: Traffic,
    backends: Vec<Traffic>,
}

impl Bench {
    /// Enters a namespace and loads. Native mode matters: only then has `lb0` receive queues to pretend a
    /// packet from. The thread keeps to the first core, so that the rows know which one is another.
    pub fn new() -> Result<Self> {
        namespace::enter()?;
        let mut first = CpuSet::new();
        first.set(0);
        sched_setaffinity(None, &first).context("keeping to the first core")?;
        let cores = aya::util::nr_cpus().map_err(|(call, error)| anyhow::anyhow!("{call}: {error}"))? as u32;
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(names::MAP_SLOTS, TABLE_LEN)
            .map_max_entries(names::MAP_FLOWS, FLOWS_LEN as u32)
            .map_max_entries(names::MAP_SPREAD_CPUS, cores)
            .load_file(object())
            .context("loading the object")?;
        for name in [names::PROGRAM_INGRESS, names::PROGRAM_COOKIE, names::PROGRAM_DECAP] {
            let program: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into()?;
            program.load().with_context(|| format!("{name}: refused by the verifier"))?;
        }
        place_calls(&mut ebpf)?;
        spread_over(&mut ebpf, cores)?;
        let ingress: &mut Xdp = ebpf.program_mut(names::PROGRAM_INGRESS).context("lb_ingress")?.try_into()?;
        ingress.attach("lb0", XdpMode::Driver).context("attaching natively")?;
        // The kernel answers every SYN with a cookie, whatever waits at its socket.
        std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").context("enabling SYN cookies")?;
        let sockets = sockets().into_iter().map(|at| listen(at).with_context(|| at.to_string()));
        Ok(Self { ebpf, sockets: sockets.collect::<Result<_>>()? })
    }

    /// The object, with programs of other kinds not loaded yet.
    pub fn object(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// What listens at [`SOCKETS`], in that order.
    pub fn sockets(&self) -> &[Socket] {
        &self.sockets
    }

    /// Runs a row, within one tick if that matters to it.
    pub fn run(&mut self, row: &Row) -> Result<row::Result> {
        loop {
            let tick = namespace::now_ticks();
            let result = self.run_once(row)?;
            if row.world.syns == 0 || namespace::now_ticks() == tick {
                return Ok(result);
            }
        }
    }

    /// Runs a row. Of a redirect the kernel does not say whereto here: the interface is told from the source
    /// address that the frame was given.
    fn run_once(&mut self, row: &Row) -> Result<row::Result> {
        self.write(&row.world).context("writing maps")?;
        let before = self.counters()?;
        let (verdict, frame) = self.test_run(row.program, &row.frame)?;
        let after = self.counters()?;
        let records = self.records(row.world.now)?;
        self.clear()?;
        let reasons = Reason::ALL.iter().zip(before.reasons.iter().zip(&after.reasons));
        let events = FlowEvent::ALL.iter().zip(before.events.iter().zip(&after.events));
        Ok(row::Result {
            verdict,
            frame,
            reasons: reasons.flat_map(repeated).collect(),
            events: events.flat_map(repeated).collect(),
            moved: moved(&before, &after)?,
            records,
        })
    }

    /// Runs one frame through a program: verdict and frame afterwards.
    pub fn test_run(&self, program: Program, frame: &[u8]) -> Result<(Verdict, Vec<u8>)> {
        let name = match program {
            Program::Ingress => names::PROGRAM_INGRESS,
            Program::Decap => names::PROGRAM_DECAP,
        };
        let program: &Xdp = self.ebpf.program(name).context(name)?.try_into()?;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let (data, end) = (GARBAGE.len() as u32, (GARBAGE.len() + frame.len()) as u32);
        let context = [data, end, 0, LB0, 0, 0].map(u32::to_ne_bytes).concat();
        let mut out = vec![0; 16 << 10];
        let data_in = [&GARBAGE[..], frame].concat();
        let options = TestRunOptions {
            data_in: Some(&data_in),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let result = program.test_run(options).context("BPF_PROG_TEST_RUN")?;
        out.truncate(result.data_size_out as usize);
        ensure!(out.len() >= GARBAGE.len(), "{name} gave back {} bytes", out.len());
        out.drain(..GARBAGE.len());
        let verdict = match result.return_value {
            1 => Verdict::Drop,
            2 => Verdict::Pass,
            3 => Verdict::Transmit,
            // Nobody wrote a way out into it: it is on its way to the one other core.
            4 if out == frame => Verdict::Moved,
            4 => Verdict::Redirect { interface: if out[6..12] == LB1_MAC { LB1 } else { 0 } },
            other => bail!("{name} returned {other}"),
        };
        Ok((verdict, out))
    }

    /// Writes a world into empty maps.
    pub fn write(&mut self, world: &World) -> Result<()> {
        self.array::<Meta>(names::MAP_META)?.set(0, world.meta, 0)?;
        self.array::<u32>(names::MAP_REFUSED_AT)?.set(0, world.refused_at, 0)?;
        let mut slots = self.array::<u64>(names::MAP_SLOTS)?;
        for (index, Slot(word)) in world.slots.iter().enumerate() {
            slots.set(index as u32, word, 0)?;
        }
        let mut backends = self.array::<BackendEntry>(names::MAP_BACKENDS)?;
        for (id, entry) in &world.backends {
            backends.set(u32::from(*id), entry, 0)?;
        }
        let mut vips = self.hash::<VipKey, VipEntry>(names::MAP_VIPS)?;
        for (key, entry) in &world.vips {
            vips.insert(key, entry, 0)?;
        }
        let mut flows = self.hash::<FlowKey, FlowRecord>(names::MAP_FLOWS)?;
        for (key, record) in &world.flows {
            flows.insert(key, record, 0)?;
        }
        let mut links = self.hash::<u32, LinkEntry>(names::MAP_LINKS)?;
        for (index, entry) in &world.links {
            links.insert(index, entry, 0)?;
        }
        let mut listeners = self.hash::<SteerKey, SteerEntry>(names::MAP_STEER_LISTENERS)?;
        for (key, entry) in &world.listeners {
            listeners.insert(key, entry, 0)?;
        }
        self.array::<Spread>(names::MAP_SPREAD)?.set(0, world.spread_entry(), 0)?;
        let mut cores = self.array::<u32>(names::MAP_SPREAD_CORES)?;
        for (worker, core) in (0..).zip(&world.cores) {
            cores.set(worker, core, 0)?;
        }
        let mut syns = PerCpuArray::<_, Budget>::try_from(self.map(names::MAP_SYNS)?)?;
        let all = vec![Budget { tick: namespace::now_ticks(), spent: world.syns }; syns.get(&0, 0)?.len()];
        syns.set(0, PerCpuValues::try_from(all)?, 0)?;
        for (prefix, bits) in &world.deny {
            match prefix {
                IpAddr::V4(v4) => self.deny_v4()?.insert(&Key::new(*bits, v4.octets()), 1, 0)?,
                IpAddr::V6(v6) => self.deny_v6()?.insert(&Key::new(*bits, v6.octets()), 1, 0)?,
            }
        }
        Ok(())
    }

    /// Empties what a world is written into, and what the programs kept of the way to its backends; other arrays are
    /// overwritten anyway.
    pub fn clear(&mut self) -> Result<()> {
        let mut hops = PerCpuArray::<_, HopEntry>::try_from(self.map(names::MAP_HOPS)?)?;
        for id in 0..=u32::from(NOBODY) {
            let none = vec![HopEntry::default(); hops.get(&id, 0)?.len()];
            hops.set(id, PerCpuValues::try_from(none)?, 0)?;
        }
        let mut vips = self.hash::<VipKey, VipEntry>(names::MAP_VIPS)?;
        for key in vips.keys().collect::<std::result::Result<Vec<_>, _>>()? {
            vips.remove(&key)?;
        }
        let mut flows = self.hash::<FlowKey, FlowRecord>(names::MAP_FLOWS)?;
        for key in flows.keys().collect::<std::result::Result<Vec<_>, _>>()? {
            flows.remove(&key)?;
        }
        let mut links = self.hash::<u32, LinkEntry>(names::MAP_LINKS)?;
        for key in links.keys().collect::<std::result::Result<Vec<_>, _>>()? {
            links.remove(&key)?;
        }
        let mut listeners = self.hash::<SteerKey, SteerEntry>(names::MAP_STEER_LISTENERS)?;
        for key in listeners.keys().collect::<std::result::Result<Vec<_>, _>>()? {
            listeners.remove(&key)?;
        }
        let mut deny = self.deny_v4()?;
        for key in deny.keys().collect::<std::result::Result<Vec<_>, _>>()? {
            deny.remove(&key)?;
        }
        let mut deny = self.deny_v6()?;
        for key in deny.keys().collect::<std::result::Result<Vec<_>, _>>()? {
            deny.remove(&key)?;
        }
        Ok(())
    }

    fn records(&mut self, now: u32) -> Result<Vec<Left>> {
        let flows = self.hash::<FlowKey, FlowRecord>(names::MAP_FLOWS)?;
        let mut left = Vec::new();
        for entry in flows.iter() {
            let (key, FlowRecord { backend, epoch, state, seen }) = entry?;
            // Ticks wrap: on a machine that booted just now, long ago is a large number.
            let fresh = seen.wrapping_sub(now) < u32::MAX / 2;
            left.push(Left { key, backend, epoch, state, fresh });
        }
        Ok(left)
    }

    fn counters(&mut self) -> Result<Counters> {
        let counted = self.sums(names::MAP_REASONS, reason::COUNT as usize)?;
        let reasons = Reason::ALL.iter().map(|reason| counted[*reason as usize]).collect();
        let events = self.sums(names::MAP_FLOW_EVENTS, FlowEvent::ALL.len())?;
        let vip = self.traffic(names::MAP_VIP_TRAFFIC, VIP)?;
        let backends = (0..=u32::from(NOBODY)).map(|id| self.traffic(names::MAP_BACKEND_TRAFFIC, id));
        let backends = backends.collect::<Result<_>>()?;
        Ok(Counters { reasons, events, vip, backends })
    }

    fn sums(&mut self, name: &str, len: usize) -> Result<Vec<u64>> {
        let map = PerCpuArray::<_, u64>::try_from(self.map(name)?)?;
        (0..len as u32).map(|index| Ok(map.get(&index, 0)?.iter().sum())).collect()
    }

    fn traffic(&mut self, name: &str, index: u32) -> Result<Traffic> {
        let map = PerCpuArray::<_, Traffic>::try_from(self.map(name)?)?;
        let values = map.get(&index, 0)?;
        Ok(values.iter().fold(Traffic::default(), |sum, core| Traffic {
            packets: sum.packets + core.packets,
            bytes: sum.bytes + core.bytes,
            new_flows: sum.new_flows + core.new_flows,
        }))
    }

    fn map(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.ebpf.map_mut(name).with_context(|| format!("no map {name}"))
    }

    fn array<V: Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, V>> {
        Ok(Array::try_from(self.map(name)?)?)
    }

    fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> Result<HashMap<&mut MapData, K, V>> {
        Ok(HashMap::try_from(self.map(name)?)?)
    }

    fn deny_v4(&mut self) -> Result<LpmTrie<&mut MapData, [u8; 4], u32>> {
        Ok(LpmTrie::try_from(self.map(names::MAP_DENY_V4)?)?)
    }

    fn deny_v6(&mut self) -> Result<LpmTrie<&mut MapData, [u8; 16], u32>> {
        Ok(LpmTrie::try_from(self.map(names::MAP_DENY_V6)?)?)
    }
}

/// Puts every program that `lb_ingress` calls, loaded, where it does.
pub fn place_calls(ebpf: &mut Ebpf) -> Result<()> {
    let mut place = |call: u32, name: &str| -> Result<()> {
        let program: &Xdp = ebpf.program(name).with_context(|| name.to_owned())?.try_into()?;
        let program = program.fd()?.try_clone()?;
        let map = ebpf.map_mut(names::MAP_PROGRAMS).context(names::MAP_PROGRAMS)?;
        Ok(ProgramArray::try_from(map)?.set(call, &program, 0)?)
    };
    place(names::CALL_COOKIE, names::PROGRAM_COOKIE)
}

/// Every core that there is can be spread to, and every port of [`SOCKETS`] is a listener's.
fn spread_over(ebpf: &mut Ebpf, cores: u32) -> Result<()> {
    let mut cpus = CpuMap::try_from(ebpf.map_mut(names::MAP_SPREAD_CPUS).context(names::MAP_SPREAD_CPUS)?)?;
    for core in 0..cores.min(2) {
        cpus.set(core, SPREAD_QUEUE, None, 0)?;
    }
    let map = ebpf.map_mut(names::MAP_SPREAD_PORTS).context(names::MAP_SPREAD_PORTS)?;
    let mut ports = Array::<_, u32>::try_from(map)?;
    for socket in sockets() {
        let (word, bit) = port_bit(socket.port());
        ports.set(word, ports.get(&word, 0)? | bit, 0)?;
    }
    Ok(())
}

/// Listens at an address.
pub fn listen(address: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A name as often as its counter moved.
fn repeated<T: Copy>((name, (before, after)): (&T, (&u64, &u64))) -> impl Iterator<Item = T> {
    std::iter::repeat_n(*name, (after - before) as usize)
}

fn difference(before: &Traffic, after: &Traffic) -> Traffic {
    Traffic {
        packets: after.packets - before.packets,
        bytes: after.bytes - before.bytes,
        new_flows: after.new_flows - before.new_flows,
    }
}

fn moved(before: &Counters, after: &Counters) -> Result<Vec<Moved>> {
    let vip = difference(&before.vip, &after.vip);
    let backends =
        before.backends.iter().zip(&after.backends).map(|(before, after)| difference(before, after));
    let mut moved = Vec::new();
    for (id, traffic) in backends.enumerate() {
        if traffic != Traffic::default() {
            ensure!(traffic == vip && vip.packets == 1, "VIP counted {vip:?}, backend {id} {traffic:?}");
            let Traffic { bytes, new_flows, .. } = traffic;
            moved.push(Moved { vip: VIP, backend: id as u16, bytes, new_flows });
        }
    }
    ensure!(!moved.is_empty() || vip == Traffic::default(), "VIP counted {vip:?}, no backend did");
    Ok(moved)
}
