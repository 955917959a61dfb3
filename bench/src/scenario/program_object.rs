//! The object as `l4-program` needs it: loaded at full size in a namespace of this thread, its maps filled for
//! one case at a time, its programs run behind `bench_wrap`.

use std::{
    collections::HashSet,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod, TestRun as _, TestRunOptions,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues, ProgramArray},
    programs::{
        Xdp, XdpMode,
        xdp::{XdpLink, XdpLinkId},
    },
};
use ipnet::{IpNet, Ipv4Net};
use lb::steering::maps::{Flows, Lists};
use lb_abi::{
    ABI_VERSION,
    backend::{BackendEntry, PRESENT},
    be::Be16,
    bench::{self, HEAD_LEN, Plan},
    bounds::{DENY_MAX, TABLE_LEN},
    counter::FlowEvent,
    directory::VipSlot,
    flow::{FlowKey, FlowRecord, Inserts},
    guard::GuardBucket,
    lengths::{self, DENY_V4, DENY_V6, Lengths},
    meta::{FLAG_DENY_V4, FLAG_DENY_V6, FLAG_NAT, Meta},
    names,
    nat::{ANSWERED, FORWARD, HEARD, NatEntry, NatPool},
    quic::{Id, QuicEntry, Server},
    reason::Reason,
    slot::{Phase, Slot, ticks},
    source::{SourceKey, SourceTree, first_set},
    tag::FlowTag,
    vip::{ECHO, FORWARD_NAT, VipEntry, VipKey},
};
use lb_tests::{
    packet::Packet,
    xdp::{
        directory::Directory,
        namespace,
        world::{self, GUARD_KEY, LB0, TAG_KEYS, VIP},
    },
};

/// Names the measured programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// Does nothing.
    Empty,
    /// Swaps the Ethernet addresses and sends the packet back.
    Swap,
    /// `lb_ingress`.
    Ingress,
    /// Counts and drops.
    Sink,
}

/// How the slots of the only table stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slots {
    /// All settled on a backend.
    Settled(u16),
    /// All just opened.
    Open { owner: u16, previous: u16 },
    /// All closed.
    Closed(u16),
}

/// Epoch of slots that move.
const EPOCH: u8 = 5;

/// What stands in the maps.
#[derive(Clone, Debug)]
pub(crate) struct Maps {
    /// Flags of ports 80/tcp, 53/udp and 443/udp of both VIP addresses.
    pub(crate) forward: u32,
    pub(crate) slots: Slots,
    /// Whether the deny list is looked at; it has a million prefixes.
    pub(crate) deny: bool,
}

/// Which packets of translated flows a case is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The clients'.
    There,
    /// The backends'.
    Back,
}

/// What sources are translated to.
pub(crate) const NAT_SOURCE: &str = "10.0.9.1";

/// Name of interface [`LB0`].
const LB0_NAME: &str = "lb0";

/// Sources under which packets are denied.
pub(crate) const DENIED_V4: [u8; 4] = [203, 0, 113, 0];
/// The first half of this /24 is not denied; a host in the second is.
pub(crate) const BESIDE_DENIED_V4: [u8; 4] = [198, 52, 0, 0];

/// 1 048 576 prefixes: [`DENIED_V4`], a host beside the clients of [`BESIDE_DENIED_V4`], then as thrown by dice one
/// in 256 of 16 bits, fifteen of 24 and the rest hosts; none in 198.0.0.0/8, where the other clients are, or
/// 203.0.0.0/8.
fn denied() -> Vec<IpNet> {
    let [a, b, c, _] = BESIDE_DENIED_V4;
    let named = [(Ipv4Addr::from(DENIED_V4), 24), (Ipv4Addr::new(a, b, c, 200), 32)];
    let mut state = 1u64;
    let thrown = std::iter::from_fn(|| {
        // Knuth's constants for a linear congruential generator.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let len = match state >> 24 & 255 {
            0 => 16,
            1..16 => 24,
            _ => 32,
        };
        Some((Ipv4Addr::from_bits((state >> 32) as u32), len))
    });
    let mut seen = HashSet::new();
    named
        .into_iter()
        .chain(thrown.filter(|(address, _)| ![198, 203].contains(&address.octets()[0])))
        .map(|(address, len)| IpNet::V4(Ipv4Net::new_assert(address, len)).trunc())
        .filter(|net| seen.insert(*net))
        .take(DENY_MAX as usize)
        .collect()
}

/// One loaded object and its wrapper.
pub(crate) struct Bench {
    object: Ebpf,
    wrapper: Ebpf,
    flows: Flows,
    /// What stands in the table.
    slots: Option<Slots>,
    /// `lb_ingress` on `lb0`, while it is there.
    link: Option<XdpLinkId>,
    /// `bench_sink` on `lb0`, while it is there.
    sink_link: Option<XdpLink>,
}

impl Bench {
    /// Enters a namespace, which ends with the calling thread, and loads both objects from `directory`.
    pub(crate) fn load(directory: &Path) -> Result<Self> {
        namespace::enter()?;
        let mut object = load(&directory.join("lb.o"))?;
        let ingress = program(&mut object, names::PROGRAM_INGRESS)?;
        ingress.load()?;
        // Natively: only then has lb0 receive queues to pretend a packet from.
        let link = ingress.attach(LB0_NAME, XdpMode::Driver).context("attaching natively")?;
        let nat = program(&mut object, names::PROGRAM_NAT)?;
        nat.load()?;
        let nat = nat.fd()?.try_clone()?;
        ProgramArray::try_from(map(&mut object, names::MAP_PROGRAMS)?)?.set(names::CALL_NAT, &nat, 0)?;
        let mut wrapper = load(&directory.join("bench.o"))?;
        for name in [bench::PROGRAM_WRAP, bench::PROGRAM_EMPTY, bench::PROGRAM_SWAP, bench::PROGRAM_SINK] {
            program(&mut wrapper, name)?.load().with_context(|| name)?;
        }
        let mut take = |name| object.take_map(name).context(name);
        let flows = Flows::map(take(names::MAP_FLOWS)?, take(names::MAP_FLOW_KEYS)?)?;
        let mut this = Self { object, wrapper, flows, slots: None, link: Some(link), sink_link: None };
        this.furnish()?;
        Ok(this)
    }

    /// Fills the maps that are alike for all cases.
    fn furnish(&mut self) -> Result<()> {
        let mut backends = array::<BackendEntry>(&mut self.object, names::MAP_BACKENDS)?;
        for backend in world::BACKENDS {
            let address = world::address(backend.address);
            let entry = BackendEntry { address, flags: PRESENT, ..BackendEntry::default() };
            backends.set(u32::from(backend.id), entry, 0)?;
        }
        let pool = NatPool { first: 0, count: 1, cores: self.cores()?, pad: 0 };
        array::<NatPool>(&mut self.object, names::MAP_NAT_POOLS)?.set(VIP, pool, 0)?;
        let source = world::address(NAT_SOURCE);
        array::<[u8; 16]>(&mut self.object, names::MAP_NAT_SOURCES)?.set(0, source, 0)?;
        self.write_choices()?;
        self.write_guard()
    }

    /// Cores that the machine may ever have.
    fn cores(&mut self) -> Result<u32> {
        let counters = PerCpuArray::<_, u64>::try_from(map(&mut self.object, names::MAP_REASONS)?)?;
        Ok(counters.get(&0, 0)?.len() as u32)
    }

    /// What leads packets beside slots, for VIPs that have the flags.
    fn write_choices(&mut self) -> Result<()> {
        let mut entry = QuicEntry { configs: 1, ..QuicEntry::default() };
        (entry.keys[0], entry.pools[0]) = (world::HASH_KEY, 1);
        array::<QuicEntry>(&mut self.object, names::MAP_QUIC)?.set(VIP, entry, 0)?;
        let server = Server { backend: world::NEAR.id, generation: 0, pool: 1 };
        array::<u64>(&mut self.object, names::MAP_QUIC_SERVERS)?.set(SERVER.into(), server.to_word(), 0)?;
        let mut tree = SourceTree::default();
        tree.v4[0] = 96 + 24;
        let set = first_set(VIP);
        array::<SourceTree>(&mut self.object, names::MAP_SOURCE_TREES)?.set(set, tree, 0)?;
        array::<u32>(&mut self.object, names::MAP_SOURCE_SETS)?.set(VIP, set, 0)?;
        let mut sources = HashMap::<_, SourceKey, u32>::try_from(map(&mut self.object, names::MAP_SOURCES)?)?;
        for network in 0..PREFIXES {
            let prefix = Ipv4Addr::from((network << 8).wrapping_add(PREFIXES_FROM)).to_ipv6_mapped().octets();
            sources.insert(SourceKey { set, length: 96 + 24, prefix }, 0, 0)?;
        }
        Ok(())
    }

    /// A deny list as long as there may be.
    fn write_guard(&mut self) -> Result<()> {
        let lists = Lists::of(GUARD_KEY, &denied(), &[]);
        let mut gates = array::<u64>(&mut self.object, names::MAP_GATES)?;
        for (at, word) in (0..).zip(lists.gates()).filter(|(_, word)| **word != 0) {
            gates.set(at, word, 0)?;
        }
        let mut guard = array::<GuardBucket>(&mut self.object, names::MAP_GUARD)?;
        (0..).zip(lists.buckets()?).try_for_each(|(at, bucket)| guard.set(at, bucket, 0))?;
        let copies = world::World::new(0).meta.lengths;
        let mut map = array::<Lengths>(&mut self.object, names::MAP_LENGTHS)?;
        for (list, value) in [DENY_V4, DENY_V6].into_iter().zip(lists.lengths()) {
            map.set(lengths::index(list, copies[list]), value, 0)?;
        }
        Ok(())
    }

    /// Fills the maps for a case.
    pub(crate) fn write(&mut self, maps: &Maps) -> Result<()> {
        let flags = if maps.deny { FLAG_DENY_V4 | FLAG_DENY_V6 } else { 0 };
        let flags = flags | if maps.forward == FORWARD_NAT { FLAG_NAT } else { 0 };
        let meta = Meta { abi: ABI_VERSION, flags, ..world::World::new(0).meta };
        array::<Meta>(&mut self.object, names::MAP_META)?.set(0, meta, 0)?;
        self.write_slots(maps.slots)?;
        let mut keys = Vec::new();
        let mut vips = HashMap::<_, VipKey, VipEntry>::try_from(map(&mut self.object, names::MAP_VIPS)?)?;
        for (address, port, protocol, flags) in [
            ("192.0.2.1", 80, 6, maps.forward),
            ("192.0.2.1", 53, 17, maps.forward),
            ("192.0.2.1", 443, 17, maps.forward),
            ("192.0.2.1", 0, 1, ECHO),
            ("2001:db8::1", 80, 6, maps.forward),
            ("2001:db8::1", 53, 17, maps.forward),
            ("2001:db8::1", 443, 17, maps.forward),
            ("2001:db8::1", 0, 58, ECHO),
        ] {
            let key =
                VipKey { address: world::address(address), port: Be16::new(port), protocol, host_bits: 0 };
            let entry = VipEntry {
                vip: VIP,
                table: 0,
                table_len: TABLE_LEN,
                flags,
                hash_key: world::HASH_KEY,
                flow_idle_ticks: ticks(3600),
                last_port: 0,
                pad: 0,
            };
            vips.insert(key, entry, 0)?;
            keys.push((key, entry));
        }
        let directory = Directory::of(&keys);
        let mut entries = array::<VipSlot>(&mut self.object, names::MAP_VIP_ENTRIES)?;
        for (index, slot) in directory.slots.iter().enumerate() {
            entries.set(index as u32, slot, 0)?;
        }
        let mut buckets = array::<u64>(&mut self.object, names::MAP_VIP_BUCKETS)?;
        directory.buckets.iter().try_for_each(|(at, bucket)| Ok(buckets.set(*at, bucket.0, 0)?))
    }

    /// Writes the only table, where it stands otherwise: it has 65 537 slots.
    fn write_slots(&mut self, wanted: Slots) -> Result<()> {
        if self.slots == Some(wanted) {
            return Ok(());
        }
        let now = namespace::now_ticks();
        let Slot(word) = match wanted {
            Slots::Settled(owner) => Slot::settled(owner, 0, now),
            Slots::Open { owner, previous } => Slot::new(owner, previous, Phase::Open, EPOCH, now),
            Slots::Closed(owner) => Slot::new(owner, owner, Phase::Closed, EPOCH, now),
        };
        let mut slots = array::<u64>(&mut self.object, names::MAP_SLOTS)?;
        (0..TABLE_LEN).try_for_each(|index| slots.set(index, word, 0))?;
        self.slots = Some(wanted);
        Ok(())
    }

    /// Removes all flow records.
    pub(crate) fn forget_flows(&self) {
        let mut tags = Vec::new();
        self.flows.for_each(&mut |key, _| tags.push(FlowTag::of(&TAG_KEYS, key)));
        tags.into_iter().for_each(|tag| self.flows.remove(tag));
    }

    /// Removes all translated flows.
    pub(crate) fn forget_translated(&mut self) -> Result<()> {
        for name in [names::MAP_NAT_OPENING, names::MAP_NAT_FLOWS] {
            let mut flows = HashMap::<_, FlowKey, NatEntry>::try_from(map(&mut self.object, name)?)?;
            let keys: Vec<_> = flows.keys().collect::<std::result::Result<_, _>>()?;
            // A full map of half-open flows may have dropped one since.
            keys.iter().for_each(|key| drop(flows.remove(key)));
        }
        Ok(())
    }

    /// Establishes the first `flows` flows of a packet, which leave as another one does: each by a port of its own, which
    /// the balancer takes of itself or the backend's reply finds the client by.
    pub(crate) fn translate(&mut self, packet: &Packet, leaves: &Packet, way: Way, flows: u32) -> Result<()> {
        let mut map =
            HashMap::<_, FlowKey, NatEntry>::try_from(map(&mut self.object, names::MAP_NAT_FLOWS)?)?;
        let (mut key, leaves) = (world::flow(packet), world::flow(leaves));
        let [.., a, b, c, d] = key.source;
        let first = u32::from_be_bytes([a, b, c, d]);
        for at in 0..flows {
            key.source[12..].copy_from_slice(&first.wrapping_add(at).to_be_bytes());
            let mut entry = NatEntry {
                source: leaves.source,
                destination: leaves.destination,
                source_port: leaves.source_port,
                destination_port: leaves.destination_port,
                backend: world::NEAR.id,
                vip: VIP as u16,
                generation: 0,
                expected: 0,
                flags: if way == Way::There { FORWARD } else { ANSWERED | HEARD },
                seen: namespace::now_ticks(),
            };
            let port = if way == Way::There { &mut entry.source_port } else { &mut entry.destination_port };
            *port = Be16::new(port.host().wrapping_add(at as u16));
            let peer = NatEntry {
                source: key.destination,
                destination: key.source,
                source_port: key.destination_port,
                destination_port: key.source_port,
                flags: if way == Way::There { ANSWERED | HEARD } else { FORWARD },
                ..entry
            };
            map.insert(key, entry, 0)?;
            map.insert(entry.peer(key.protocol), peer, 0)?;
        }
        Ok(())
    }

    /// Begins every core's insert budget anew.
    pub(crate) fn renew_budget(&mut self) -> Result<()> {
        let mut inserts = PerCpuArray::<_, Inserts>::try_from(map(&mut self.object, names::MAP_INSERTS)?)?;
        let cpus = inserts.get(&0, 0)?.len();
        Ok(inserts.set(0, PerCpuValues::try_from(vec![Inserts::default(); cpus])?, 0)?)
    }

    /// Records the first `flows` flows of a packet, all with one backend.
    pub(crate) fn remember(&self, packet: &Packet, flows: u32, backend: u16) -> Result<()> {
        let mut key = world::flow(packet);
        let [.., a, b, c, d] = key.source;
        let first = u32::from_be_bytes([a, b, c, d]);
        for at in 0..flows {
            key.source[12..].copy_from_slice(&first.wrapping_add(at).to_be_bytes());
            let seen = namespace::now_ticks();
            let record = FlowRecord { backend, epoch: EPOCH, state: 0, seen };
            ensure!(
                self.flows.insert(&key, FlowTag::of(&TAG_KEYS, &key), record),
                "no room for flow {at} of {flows}"
            );
        }
        Ok(())
    }

    /// Says what the wrapper restores and calls.
    pub(crate) fn aim(&mut self, target: Program, packet: &Packet, frame: &[u8], flows: u32) -> Result<()> {
        ensure!(flows.is_power_of_two(), "{flows} flows are no power of two");
        let head = *frame.first_chunk::<HEAD_LEN>().context("a frame shorter than its head")?;
        let source_at = packet.ip_at() + if packet.source().is_ipv4() { 12 } else { 8 + 12 };
        let source = u32::from_be_bytes(*head[source_at..].first_chunk().context("no source address")?);
        let plan = Plan {
            head,
            frame_len: frame.len() as u32,
            source_at: source_at as u32,
            source,
            flows_mask: flows - 1,
            turn: 0,
            pad: 0,
        };
        array::<Plan>(&mut self.wrapper, bench::MAP_PLAN)?.set(0, plan, 0)?;
        let fd = match target {
            Program::Empty => program(&mut self.wrapper, bench::PROGRAM_EMPTY)?.fd()?.try_clone()?,
            Program::Swap => program(&mut self.wrapper, bench::PROGRAM_SWAP)?.fd()?.try_clone()?,
            Program::Sink => program(&mut self.wrapper, bench::PROGRAM_SINK)?.fd()?.try_clone()?,
            Program::Ingress => program(&mut self.object, names::PROGRAM_INGRESS)?.fd()?.try_clone()?,
        };
        let mut programs = ProgramArray::try_from(map(&mut self.wrapper, bench::MAP_PROGRAM)?)?;
        Ok(programs.set(0, &fd, 0)?)
    }

    /// Runs the wrapper `repeat` times: nanoseconds per run, as the kernel measures them, and the last verdict.
    pub(crate) fn run(&mut self, frame: &[u8], repeat: u32) -> Result<(f64, u32)> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, frame.len() as u32, 0, LB0, 0, 0].map(u32::to_ne_bytes).concat();
        let mut out = vec![0; 4096];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::new()
        };
        let result = program(&mut self.wrapper, bench::PROGRAM_WRAP)?
            .test_run(options)
            .context("BPF_PROG_TEST_RUN")?;
        Ok((result.duration.as_nanos() as f64, result.return_value))
    }

    /// Puts a program on `lb0` in place of the one that is there; `None`: takes that off.
    pub(crate) fn stand(&mut self, wanted: Option<Program>) -> Result<()> {
        if let Some(link) = self.link.take() {
            program(&mut self.object, names::PROGRAM_INGRESS)?.detach(link)?;
        }
        self.sink_link = None;
        match wanted {
            Some(Program::Ingress) => {
                let ingress = program(&mut self.object, names::PROGRAM_INGRESS)?;
                self.link = Some(ingress.attach(LB0_NAME, XdpMode::Driver)?);
            }
            Some(Program::Sink) => self.sink_link = Some(self.sink(LB0_NAME)?),
            Some(Program::Empty | Program::Swap) | None => {}
        }
        Ok(())
    }

    /// Puts `bench_sink` on an interface for as long as the link is held.
    pub(crate) fn sink(&mut self, interface: &str) -> Result<XdpLink> {
        let sink = program(&mut self.wrapper, bench::PROGRAM_SINK)?;
        let link = sink.attach(interface, XdpMode::Driver)?;
        Ok(sink.take_link(link)?)
    }

    /// Packets that `bench_sink` took, wherever it stands.
    pub(crate) fn sunk(&mut self) -> Result<u64> {
        let counter = PerCpuArray::<_, u64>::try_from(map(&mut self.wrapper, bench::MAP_SUNK)?)?;
        Ok(counter.get(&0, 0)?.iter().sum())
    }

    /// How often a reason was counted, over all cores.
    pub(crate) fn reason(&mut self, reason: Reason) -> Result<u64> {
        let counters = PerCpuArray::<_, u64>::try_from(map(&mut self.object, names::MAP_REASONS)?)?;
        Ok(counters.get(&(reason as u32), 0)?.iter().sum())
    }

    /// How often a flow event was counted, over all cores.
    pub(crate) fn event(&mut self, event: FlowEvent) -> Result<u64> {
        let counters = PerCpuArray::<_, u64>::try_from(map(&mut self.object, names::MAP_FLOW_EVENTS)?)?;
        Ok(counters.get(&(event as u32), 0)?.iter().sum())
    }
}

/// Prefixes of 24 bits that lead to the only table, from 198.0.0.0 on.
const PREFIXES: u32 = 1 << 17;
const PREFIXES_FROM: u32 = 198 << 24;

/// Server id of the nearest backend.
const SERVER: u16 = 7;

/// What a QUIC datagram begins with whose id names that server.
pub(crate) fn short_header() -> Vec<u8> {
    let id = Id::new(world::HASH_KEY, 0, SERVER, [1, 2, 3, 4, 5]).to_bytes();
    [&[0x40][..], &id].concat()
}

/// Where `cargo xtask build-ebpf` puts the objects.
pub(crate) fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf")
}

fn load(path: &Path) -> Result<Ebpf> {
    EbpfLoader::new()
        .load_file(path)
        .with_context(|| format!("loading {} (cargo xtask build-ebpf builds it)", path.display()))
}

fn program<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp> {
    Ok(object.program_mut(name).context(name)?.try_into()?)
}

fn map<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::maps::Map> {
    object.map_mut(name).with_context(|| format!("no map {name}"))
}

fn array<'a, V: Pod>(object: &'a mut Ebpf, name: &str) -> Result<Array<&'a mut MapData, V>> {
    Ok(Array::try_from(map(object, name)?)?)
}
