//! Rows through `BPF_PROG_TEST_RUN` on the built object.

mod write;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod, TestRun as _, TestRunOptions,
    maps::{Array, CpuMap, HashMap, MapData, MapError, PerCpuArray, ProgramArray, RingBuf},
    programs::{Xdp, XdpMode, xdp::XdpLinkId},
};
use lb::steering::maps::Flows;
use lb_abi::{
    activity,
    bounds::SPREAD_QUEUE,
    capture::{self, CaptureFilter, CaptureRecord},
    counter::{Budget, FlowEvent, Traffic},
    flow::{FlowKey, FlowRecord, Inserts},
    hop::HopEntry,
    interface::{self, InterfaceEntry},
    limit::Allowance,
    names,
    nat::{NatEntry, NatEvent},
    pod,
    quic::QuicEvent,
    reason::{self, Fate, Reason},
    spread::port_bit,
    tag::FlowTag,
    trace::{Trace, Why},
    vip::FORWARD_NAT,
};
use lb_ebpf::verdict::Verdict;
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::{Domain, Protocol, Socket, Type};

use crate::xdp::{
    directory::Directory,
    guard::Guard,
    namespace,
    row::{self, Left, Moved, NatLeft, Program, Row},
    world::{LB0, LB1, LB1_MAC, NAT_FLOWS_LEN, NOBODY, TABLE_LEN, VIP, WINDOW, sockets},
};

/// Metadata in front of every frame: the kernel's headroom is zero there, and it is as much as 6.1 takes. It moves
/// along with the frame's first byte, and leaves its bytes where headers are written.
const GARBAGE: [u8; 32] = [0xa5; 32];

/// Connections that may wait at each of [`SOCKETS`].
pub const BACKLOG: i32 = 16;

/// What is called, and its place.
const CALLS: [(u32, &str); names::CALLS as usize] =
    [(names::CALL_NAT, names::PROGRAM_NAT), (names::CALL_COOKIE, names::PROGRAM_COOKIE)];

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

/// Number of `lb0` in the counters of interfaces.
const LB0_NUMBER: u32 = 5;

/// Maps that are walked from end to end for each row, and need not be as large as they are.
const SMALL: u32 = 1024;

/// Objects that a bench of this process was done with: the verifier takes seconds for one, in a guest half a minute.
static SPARE: Mutex<Vec<Loaded>> = Mutex::new(Vec::new());

/// Programs past the verifier, and their maps.
#[derive(Debug)]
struct Loaded {
    ebpf: Ebpf,
    flows: Flows,
}

/// The object, loaded, with `lb_ingress` attached natively to `lb0` of a namespace of the calling thread.
#[derive(Debug)]
pub struct Bench {
    /// There until it is dropped.
    loaded: Option<Loaded>,
    links: Vec<(&'static str, XdpLinkId)>,
    /// Somebody had the object itself, and may have left anything in it.
    is_altered: bool,
    is_capturing: bool,
    /// `FLOWS` was written into.
    has_flows: bool,
    /// What map `INSERTS` said when `FLOWS` was last known to be empty.
    inserts: Vec<Inserts>,
    /// What stands in its maps.
    directory: Directory,
    guard: Guard,
    /// What leaves no room in it for a flow.
    crowd: Vec<FlowTag>,
    sockets: Vec<Socket>,
}

/// All counters at one moment, summed over cores.
#[derive(Debug, PartialEq)]
struct Counters {
    reasons: Vec<u64>,
    /// Of what came in by `lb0`, by reason.
    drops: Vec<u64>,
    events: Vec<u64>,
    quic: Vec<u64>,
    vip: Traffic,
    backends: Vec<Traffic>,
    nat: Vec<u64>,
}

impl Bench {
    /// Enters a namespace and loads. Native mode matters: only then has `lb0` receive queues to pretend a
    /// packet from. The thread keeps to the first core, whose part of the source ports the rows know, and which is not
    /// the other one that they spread packets to.
    pub fn new() -> Result<Self> {
        namespace::enter()?;
        let mut first = CpuSet::new();
        first.set(0);
        sched_setaffinity(None, &first).context("keeping to the first core")?;
        let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let loaded = spare.map_or_else(load, Ok)?;
        // The kernel answers every SYN with a cookie, whatever waits at its socket.
        std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").context("enabling SYN cookies")?;
        let sockets = sockets().into_iter().map(|at| listen(at).with_context(|| at.to_string()));
        let sockets = sockets.collect::<Result<_>>()?;
        let mut this = Self {
            loaded: Some(loaded),
            links: Vec::new(),
            is_altered: false,
            is_capturing: false,
            has_flows: false,
            inserts: Vec::new(),
            directory: Directory::default(),
            guard: Guard::default(),
            crowd: Vec::new(),
            sockets,
        };
        this.attach(names::PROGRAM_INGRESS, "lb0")?;
        this.inserts = this.inserts()?;
        Ok(this)
    }

    /// Attaches a program natively until the bench is dropped.
    pub fn attach(&mut self, name: &'static str, interface: &str) -> Result<()> {
        let link = self.program(name)?.attach(interface, XdpMode::Driver).context("attaching natively")?;
        self.links.push((name, link));
        Ok(())
    }

    /// A program, loaded.
    fn program(&mut self, name: &str) -> Result<&mut Xdp> {
        let program: &mut Xdp = self.ebpf().program_mut(name).context(name.to_owned())?.try_into()?;
        if program.fd().is_err() {
            program.load().with_context(|| format!("{name}: refused by the verifier"))?;
            println!("{name}: {:?} verified", program.info()?.verified_instruction_count());
        }
        Ok(program)
    }

    /// The object, with programs of other kinds not loaded yet.
    pub fn object(&mut self) -> &mut Ebpf {
        self.is_altered = true;
        self.ebpf()
    }

    /// Whoever had the object has taken out again all that he put into it.
    pub fn restored(&mut self) {
        self.is_altered = false;
    }

    #[expect(clippy::expect_used, reason = "it is taken when the bench is dropped, not before")]
    fn loaded(&self) -> &Loaded {
        self.loaded.as_ref().expect("an object")
    }

    #[expect(clippy::expect_used, reason = "as above")]
    fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.loaded.as_mut().expect("an object").ebpf
    }

    fn flows(&self) -> &Flows {
        &self.loaded().flows
    }

    /// Whether there may be a record. To look at all of their places would be most of a row's time.
    fn may_have_records(&mut self) -> Result<bool> {
        Ok(self.has_flows || self.inserts()? != self.inserts)
    }

    /// Tries of each core to begin a record.
    fn inserts(&mut self) -> Result<Vec<Inserts>> {
        let map = PerCpuArray::<_, Inserts>::try_from(self.map(names::MAP_INSERTS)?)?;
        Ok(map.get(&0, 0)?.to_vec())
    }

    /// What listens at [`SOCKETS`], in that order.
    pub fn sockets(&self) -> &[Socket] {
        &self.sockets
    }

    /// Runs a row, within one tick if that matters to it.
    pub fn run(&mut self, row: &Row) -> Result<row::Result> {
        self.within_a_tick(row, Self::run_once)
    }

    fn within_a_tick<T>(&mut self, row: &Row, run: fn(&mut Self, &Row) -> Result<T>) -> Result<T> {
        loop {
            let tick = namespace::now_ticks();
            let result = run(self, row)?;
            if row.world.syns == 0 || namespace::now_ticks() == tick {
                return Ok(result);
            }
            // A capture has it once.
            self.captured()?;
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
        let events = NatEvent::ALL.iter().zip(before.nat.iter().zip(&after.nat));
        let nat = NatLeft {
            opening: self.entries(names::MAP_NAT_OPENING)?,
            flows: self.entries(names::MAP_NAT_FLOWS)?,
            events: events.flat_map(repeated).collect(),
        };
        let nat = nat.normal(row.world.now);
        let allowances = self.allowances_left()?;
        self.clear()?;
        let reasons = Reason::ALL.iter().zip(before.reasons.iter().zip(&after.reasons));
        let reasons: Vec<Reason> = reasons.flat_map(repeated).collect();
        let drops = Reason::ALL.iter().zip(before.drops.iter().zip(&after.drops)).flat_map(repeated);
        let dropped = reasons.iter().copied().filter(|reason| reason.fate() == Fate::Drop);
        ensure!(drops.eq(dropped), "dropped by interface and by reason are not the same");
        let quic = QuicEvent::ALL.iter().zip(before.quic.iter().zip(&after.quic));
        let events = FlowEvent::ALL.iter().zip(before.events.iter().zip(&after.events));
        let moved = moved(&before, &after)?;
        let touched = self.touched()?;
        // Translated flows are counted by their entries.
        let is_translated = row.world.vips.iter().any(|(_, entry)| entry.flags & FORWARD_NAT != 0);
        let most = usize::from(!is_translated);
        let least = moved.len() * most;
        ensure!((least..=most).contains(&touched.len()), "slots {touched:?} were read");
        Ok(row::Result {
            verdict,
            frame,
            reasons,
            events: events.flat_map(repeated).collect(),
            quic: quic.flat_map(repeated).collect(),
            moved,
            records,
            nat,
            allowances,
        })
    }

    /// Asks `lb_why` about a row: the frame afterwards, and the answer.
    ///
    /// # Errors
    /// It moved a counter, a record or a next hop.
    pub fn why(&mut self, row: &Row) -> Result<(Vec<u8>, Trace)> {
        self.within_a_tick(row, Self::why_once)
    }

    fn why_once(&mut self, row: &Row) -> Result<(Vec<u8>, Trace)> {
        self.write(&row.world).context("writing maps")?;
        let why = Why { ingress: LB0, ..Why::default() };
        self.array::<Why>(names::MAP_WHY)?.set(0, why, 0)?;
        self.touched()?;
        let before = (
            self.counters()?,
            self.records(row.world.now)?,
            self.hops()?,
            self.allowances_left()?,
            self.syns()?,
        );
        let program: &Xdp = self.ebpf().program(names::PROGRAM_WHY).context("lb_why")?.try_into()?;
        let mut out = vec![0; 4096];
        // Without a context, as control asks.
        let options =
            TestRunOptions { data_in: Some(&row.frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = program.test_run(options).context("BPF_PROG_TEST_RUN")?;
        out.truncate(result.data_size_out as usize);
        ensure!(result.return_value == 2, "lb_why returned {}", result.return_value);
        let after = (
            self.counters()?,
            self.records(row.world.now)?,
            self.hops()?,
            self.allowances_left()?,
            self.syns()?,
        );
        ensure!(self.touched()?.is_empty(), "it counts as activity");
        self.clear()?;
        ensure!(before == after, "something moved:\n{before:?}\n{after:?}");
        Ok((out, self.array::<Why>(names::MAP_WHY)?.get(&0, 0)?.trace))
    }

    /// Begins to capture every packet, its headers only.
    pub fn capture(&mut self) -> Result<()> {
        let filter = CaptureFilter { snap: capture::SNAP_MAX as u32, ..CaptureFilter::ALL };
        self.array::<CaptureFilter>(names::MAP_CAPTURE_FILTER)?.set(0, filter, 0)?;
        for (at, name) in (0..).zip(names::PROGRAMS_CAPTURE) {
            let fd = self.program(name)?.fd()?.try_clone()?;
            ProgramArray::try_from(self.map(names::MAP_CAPTURE_PROGRAM)?)?.set(at, &fd, 0)?;
            self.is_capturing = true;
        }
        Ok(())
    }

    fn end_capture(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_capturing) {
            let mut places = ProgramArray::try_from(self.map(names::MAP_CAPTURE_PROGRAM)?)?;
            (0..).zip(names::PROGRAMS_CAPTURE).try_for_each(|(at, _)| places.clear_index(&at))?;
        }
        Ok(())
    }

    /// What was captured since it was asked last.
    pub fn captured(&mut self) -> Result<Vec<(CaptureRecord, Vec<u8>)>> {
        let mut ring = RingBuf::try_from(self.map(names::MAP_CAPTURE_RING)?)?;
        let mut captured = Vec::new();
        while let Some(item) = ring.next() {
            let (record, rest) = pod::read::<CaptureRecord>(&item).context("an item too short")?;
            captured.push((record, rest.get(..record.captured as usize).context("cut")?.to_vec()));
        }
        Ok(captured)
    }

    /// Which slots packets read, as control is told of them, since it was asked last.
    fn touched(&mut self) -> Result<Vec<usize>> {
        let mut pages = self.array::<activity::Page>(names::MAP_ACTIVITY)?;
        let cells = pages.get(&0, 0)?;
        pages.set(0, [0; activity::PAGE_CELLS as usize], 0)?;
        ensure!(cells.iter().all(|cell| [0, WINDOW].contains(cell)), "another window: {cells:?}");
        Ok((0..cells.len()).filter(|at| cells[*at] != 0).collect())
    }

    /// SYNs that each core has counted.
    fn syns(&mut self) -> Result<Vec<u32>> {
        let map = PerCpuArray::<_, Budget>::try_from(self.map(names::MAP_SYNS)?)?;
        Ok(map.get(&0, 0)?.iter().map(|budget| budget.spent).collect())
    }

    /// Next hops that each core keeps for each backend.
    fn hops(&mut self) -> Result<Vec<Vec<HopEntry>>> {
        let map = PerCpuArray::<_, HopEntry>::try_from(self.map(names::MAP_HOPS)?)?;
        (0..=u32::from(NOBODY)).map(|id| Ok(map.get(&id, 0)?.to_vec())).collect()
    }

    /// Runs one frame through a program: verdict and frame afterwards.
    pub fn test_run(&self, program: Program, frame: &[u8]) -> Result<(Verdict, Vec<u8>)> {
        let name = match program {
            Program::Ingress => names::PROGRAM_INGRESS,
            Program::Decap => names::PROGRAM_DECAP,
        };
        let program: &Xdp = self.loaded().ebpf.program(name).context(name)?.try_into()?;
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

    fn records(&mut self, now: u32) -> Result<Vec<Left>> {
        let mut left = Vec::new();
        if !self.may_have_records()? {
            return Ok(left);
        }
        self.flows().for_each(&mut |key, FlowRecord { backend, epoch, state, seen }| {
            // Ticks wrap: on a machine that booted just now, long ago is a large number.
            let fresh = seen.wrapping_sub(now) < u32::MAX / 2;
            left.push(Left { key: *key, backend: *backend, epoch: *epoch, state: *state, fresh });
        });
        Ok(left)
    }

    fn entries(&mut self, name: &str) -> Result<Vec<(FlowKey, NatEntry)>> {
        let map = self.hash::<FlowKey, NatEntry>(name)?;
        Ok(map.iter().collect::<std::result::Result<_, _>>()?)
    }

    fn counters(&mut self) -> Result<Counters> {
        let counted = self.sums(names::MAP_REASONS, reason::COUNT as usize)?;
        let reasons = Reason::ALL.iter().map(|reason| counted[*reason as usize]).collect();
        let drops = PerCpuArray::<_, u64>::try_from(self.map(names::MAP_DROPS)?)?;
        let drops = Reason::ALL
            .iter()
            .map(|reason| Ok(drops.get(&interface::counter(LB0_NUMBER, *reason as u32), 0)?.iter().sum()));
        let drops = drops.collect::<Result<_>>()?;
        let events = self.sums(names::MAP_FLOW_EVENTS, FlowEvent::ALL.len())?;
        let quic = self.sums(names::MAP_QUIC_EVENTS, QuicEvent::ALL.len())?;
        let vip = self.traffic(names::MAP_VIP_TRAFFIC, VIP)?;
        let backends = (0..=u32::from(NOBODY)).map(|id| self.traffic(names::MAP_BACKEND_TRAFFIC, id));
        let backends = backends.collect::<Result<_>>()?;
        let nat = self.sums(names::MAP_NAT_EVENTS, NatEvent::ALL.len())?;
        Ok(Counters { reasons, drops, events, quic, vip, backends, nat })
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
        self.ebpf().map_mut(name).with_context(|| format!("no map {name}"))
    }

    fn array<V: Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, V>> {
        Ok(Array::try_from(self.map(name)?)?)
    }

    fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> Result<HashMap<&mut MapData, K, V>> {
        Ok(HashMap::try_from(self.map(name)?)?)
    }

    /// What is left in allowances, by source.
    fn allowances_left(&mut self) -> Result<Vec<([u8; 16], u32)>> {
        let entry = |entry: Result<([u8; 16], u64), MapError>| {
            let (source, word) = entry?;
            Ok((source, Allowance::from_word(word).level))
        };
        self.allowances()?.iter().map(entry).collect()
    }

    fn allowances(&mut self) -> Result<HashMap<&mut MapData, [u8; 16], u64>> {
        self.hash(names::MAP_NEW_FLOWS)
    }
}

impl Drop for Bench {
    /// Keeps the object for the next bench, unless there may be something in it that would show there.
    fn drop(&mut self) {
        let is_as_new = !self.is_altered
            && !std::thread::panicking()
            && self.clear().is_ok()
            && self.touched().is_ok()
            && self.end_capture().is_ok();
        let Some(mut loaded) = self.loaded.take().filter(|_| is_as_new) else { return };
        for (name, link) in self.links.drain(..) {
            let program: Option<&mut Xdp> =
                loaded.ebpf.program_mut(name).and_then(|program| program.try_into().ok());
            if program.is_none_or(|program| program.detach(link).is_err()) {
                return;
            }
        }
        SPARE.lock().unwrap_or_else(PoisonError::into_inner).push(loaded);
    }
}

fn load() -> Result<Loaded> {
    let cores = aya::util::nr_cpus().map_err(|(call, error)| anyhow::anyhow!("{call}: {error}"))? as u32;
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries(names::MAP_SLOTS, TABLE_LEN)
        .map_max_entries(names::MAP_NAT_FLOWS, NAT_FLOWS_LEN as u32)
        .map_max_entries(names::MAP_SPREAD_CPUS, cores);
    for name in [names::MAP_NAT_OPENING, names::MAP_NEW_FLOWS, names::MAP_SOURCES] {
        loader.map_max_entries(name, SMALL);
    }
    let mut ebpf = loader.load_file(object()).context("loading the object")?;
    let own = [names::PROGRAM_INGRESS, names::PROGRAM_DECAP, names::PROGRAM_WHY];
    for name in own.into_iter().chain(CALLS.map(|(_, name)| name)) {
        let program: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into()?;
        program.load().with_context(|| format!("{name}: refused by the verifier"))?;
    }
    place_calls(&mut ebpf)?;
    spread_over(&mut ebpf, cores)?;
    let map = ebpf.map_mut(names::MAP_INTERFACES).context(names::MAP_INTERFACES)?;
    let numbered = InterfaceEntry { index: LB0, number: LB0_NUMBER };
    Array::<_, InterfaceEntry>::try_from(map)?.set(interface::place(LB0), numbered, 0)?;
    let mut take = |name| ebpf.take_map(name).context(name);
    let flows = Flows::map(take(names::MAP_FLOWS)?, take(names::MAP_FLOW_KEYS)?)?;
    Ok(Loaded { ebpf, flows })
}

/// Puts every program that `lb_ingress` calls, loaded, where it does.
pub fn place_calls(ebpf: &mut Ebpf) -> Result<()> {
    let mut place = |call: u32, name: &str| -> Result<()> {
        let program: &Xdp = ebpf.program(name).with_context(|| name.to_owned())?.try_into()?;
        let program = program.fd()?.try_clone()?;
        let map = ebpf.map_mut(names::MAP_PROGRAMS).context(names::MAP_PROGRAMS)?;
        Ok(ProgramArray::try_from(map)?.set(call, &program, 0)?)
    };
    CALLS.into_iter().try_for_each(|(call, name)| place(call, name))
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
