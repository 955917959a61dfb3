//! Full address translation: packets for a VIP leave with an address of ours as their source, so that backends
//! know nothing of us, and what they reply is translated back.
//!
//! ```text
//!   client C:c ---> V:v   lb   N:n ---> B:b backend      forward entry: key C:c -> V:v, holds N:n -> B:b
//!   client C:c <--- V:v   lb   N:n <--- B:b backend      reverse entry: key B:b -> N:n, holds V:v -> C:c
//! ```
//! The life of a flow, that is of its pair of entries:
//! ```text
//!                 SYN, datagram               ACK of what the backend sent first,
//!                 (a port is taken)           a second datagram after an answer
//!   (unknown) ---------------------> half-open ------------------------------------> established
//!                                       |                                                |
//!                   30 s, or pushed out |        FIN both ways and 120 s, RST and 10 s,  |
//!   (unknown) <-------------------------+        idle: TCP 7440 s, UDP 120 s             |
//!   (unknown) <--------------------------------------------------------------------------+
//! ```
//! Rules:
//! - Only a SYN or a datagram begins a flow; anything else of no known flow is dropped as `nat-unknown`.
//! - Half-open flows have a small map of their own whose oldest entries give way. Who does not see what a backend
//!   sends cannot leave it: an ACK counts if it acknowledges the backend's SYN. So a flood of SYNs or of forged
//!   datagrams ends no established flow and costs no memory.
//! - A flow stays with its backend, drained or gone from the config; its packets for a backend that is down are
//!   dropped as `backend-down`. A new SYN (for UDP: any datagram) then begins it anew with the slot's owner; so
//!   it does where the flow was closing. A SYN for a live flow goes where the flow goes.
//! - Expired entries are removed by control; with no daemon, the program itself gives their ports to others.
//!
//! Ports are allocated without sharing. A port of N is taken by the reverse entry under it, so it is taken for
//! one backend's address and port only. Each core tries ports of its own part ([`NatPool::place`]) in order, and
//! inserts where nothing lies (`BPF_NOEXIST`): two cores never want one port, and one core never wants two flows
//! at once. What can still meet, and what decides:
//! 1. *Two cores see SYNs of one flow.* Each takes a port of its own, then both insert the forward entry under
//!    the same key: one succeeds. The other gives its own port back and uses the entry that is there, whose
//!    reverse entry was written before it. If both found an old entry to replace, the later one stands: the flow's
//!    two SYNs have left by two ports, the client takes one of two SYN-ACKs, and at worst must connect again. No
//!    packet reaches another client.
//! 2. *A half-open flow is established while its port is tried.* Establishing inserts into the large map, then
//!    removes from the small one; taking inserts into the small one, then looks into the large one. If the removal
//!    came first, so did the insertion, and the port is seen as taken.
//! 3. *An entry expires while its flow wakes.* The clock of a half-open pair is its reverse entry's. A flow can be
//!    established until [`OPENING_TICKS`]; its port is given to another only after [`OPENING_REUSE_TICKS`]. Control
//!    removes established flows as they expire; the program waits [`GRACE_TICKS`] longer, which is longer than
//!    control waits between reading an entry and removing it. Reverse entries of established flows are removed by
//!    control and by the core that owns their port, by nobody else.
//! 4. *A half-open entry is pushed out, its peer is not.* A forward entry counts only if its reverse entry is there
//!    and points back at it; a reverse entry needs nobody.
//! 5. *An entry is removed, and its memory given to another flow, while a packet reads it.* The kernel's own trade
//!    (Documentation/bpf/map_hash.rst, v6.18): within nanoseconds one packet may leave by the other flow's values.
//!    Only entries that expired or have just moved are removed, so there is hardly a packet to read them.
//!
//! All of it is a program of its own, `lb_nat`, that `lb_ingress` calls for what it does not know: the stack of a
//! program is 512 bytes, and entries are large. The price is a second look at the headers and the VIP.
//!
//! Deliberately absent: translation between IPv4 and IPv6 (config refuses it), ports below 1024, fragments (dropped
//! by name), and keeping a client's next hop: each reply asks the routing table.

mod open;
mod quote;
mod rewrite;
mod way;

use lb_abi::{
    backend::{DOWN, PRESENT},
    flow::FlowKey,
    meta::{FLAG_LIMITED, FLAG_NAT, FLAG_WIDE_VIPS},
    nat::{
        ANSWERED, FIN, GRACE_TICKS, HEARD, NatEntry, NatEvent, NatPool, OPENING_REUSE_TICKS, OPENING_TICKS,
        RST, TCP_TICKS, UDP_TICKS, idle_ticks, is_idle, later,
    },
    reason::Reason,
    vip::{FORWARD_NAT, NAT_SOURCE, VipEntry},
};

use self::open::Chosen;
use crate::{
    address::Address,
    checksum::Delta,
    directory::{self, Wanted},
    env::Env,
    flow::Flow,
    packet::Packet,
    parse::{Ip, Link, Ports, TcpFlags, Transport},
    route::NextHop,
    select::Stage,
    verdict::{Outcome, Verdict},
    walk::{self, Walk},
};

/// The two maps of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// `NAT_OPENING`: half-open flows; the oldest give way.
    Opening,
    /// `NAT_FLOWS`: established flows; full means refuse.
    Established,
}

/// Why an entry was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another one lies under this key.
    Taken,
    /// No room.
    Full,
}

/// What translation asks of its surroundings, besides [`Walk`].
pub trait NatEnv: Walk {
    /// An entry in its place.
    type Cell: NatCell;

    /// The entry under a key, of any age.
    fn nat(&self, table: Table, key: &FlowKey) -> Option<Self::Cell>;
    /// Writes an entry where none lies.
    fn nat_insert(&self, table: Table, key: &FlowKey, entry: &NatEntry) -> Result<(), Refusal>;
    /// Removes an entry; one that is gone already is no error.
    fn nat_remove(&self, table: Table, key: &FlowKey);
    /// The sources of a VIP, by its counter index.
    fn nat_pool(&self, vip: u32) -> Option<NatPool>;
    /// The address at an index of `NAT_SOURCES`.
    fn nat_source(&self, index: u32) -> Option<[u8; 16]>;
    /// This core, and the position that its walk through the ports comes to next.
    fn nat_position(&self) -> (u32, u32);
    /// Counts an event.
    fn count_nat(&self, event: NatEvent);
}

/// An entry in its place. Each field is stored whole; values that packets leave by never change.
pub trait NatCell {
    /// Reads it into a place of the caller's.
    fn read(&self, entry: &mut NatEntry);
    /// Stores the tick of its last packet.
    fn see(&self, now: u32);
    /// Stores its flags.
    fn flag(&self, flags: u32);
    /// Stores the number that the client has to acknowledge.
    fn expect(&self, number: u32);
}

/// One packet on its way through: what it is, and what is looked up for it. The object keeps it in a map: it is too
/// large for the stack. Aligned, so that addresses in it are read in large words.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Passage {
    /// Key of the packet's own entry.
    key: FlowKey,
    /// What it leaves with.
    entry: NatEntry,
    /// Key of the other way's entry.
    reverse: FlowKey,
    /// That entry.
    peer: NatEntry,
    /// What already lies where a port is tried: the forward entry's key, both entries.
    other_key: FlowKey,
    other: NatEntry,
    other_peer: NatEntry,
    now: u32,
    /// Sequence number, and number acknowledged; 0 for UDP.
    numbers: [u32; 2],
    /// Flags that the packet leaves on its entry.
    traces: u32,
    stage: Stage,
    /// It is for a VIP.
    is_forward: bool,
    /// It begins a flow.
    is_new: bool,
    /// The next hop is known.
    is_known: bool,
    /// Of an ICMP error: what its own addresses change in its checksum.
    delta: Delta,
    hop: NextHop,
    verdict: Verdict,
}

impl Passage {
    /// Notes the packet on its entry `cell`, which `self.entry` was read from.
    #[inline(always)]
    fn note(&self, cell: &impl NatCell, flags: u32) {
        note(cell, &self.entry, flags, self.now);
    }
}

/// Notes a packet on an entry that was read as `entry`, without a write where nothing changes.
#[inline(always)]
fn note(cell: &impl NatCell, entry: &NatEntry, flags: u32, now: u32) {
    if entry.seen != now {
        cell.see(now);
    }
    if entry.flags | flags != entry.flags {
        cell.flag(entry.flags | flags);
    }
}

/// Whether anything is translated at all.
#[inline(always)]
pub fn is_on<E: Env>(env: &E) -> bool {
    env.meta().is_some_and(|meta| meta.flags & FLAG_NAT != 0)
}

/// Decides about a packet that [`crate::ingress`] let by: translates it, or says that it is not ours, as
/// [`crate::listener`] does; and counts it.
/// What `passage` holds before does not matter.
#[inline(always)]
pub fn nat<P: Packet, E: NatEnv>(packet: &mut P, env: &E, passage: &mut Passage) -> Verdict {
    let outcome = match walk(packet, env, passage) {
        Ok(outcome) => outcome,
        Err(reason) => Outcome::stopped(reason),
    };
    outcome.count(env);
    outcome.verdict
}

/// As in [`crate::ingress`], up to what is addressed to whom; denied and malformed packets do not come here.
#[inline(always)]
fn walk<P: Packet, E: NatEnv>(packet: &mut P, env: &E, passage: &mut Passage) -> Result<Outcome, Reason> {
    let link = Link::parse(packet).map_err(|_| Reason::NotOurs)?;
    let family = link.family().ok_or(Reason::NotOurs)?;
    if link.to_group {
        return Err(Reason::NotOurs);
    }
    let ip = Ip::parse(packet, link.len, family).map_err(|_| Reason::NotOurs)?;
    let transport = Transport::parse(packet, &ip).map_err(|_| Reason::NotOurs)?;
    let mut is_possible = true;
    let ports = match transport {
        Transport::Tcp(ports, flags) => {
            let numbers = packet.load(ip.at + ip.family.header_len() + 4).ok_or(Reason::NotOurs)?;
            is_possible = passage.tcp(flags, numbers);
            ports
        }
        Transport::Udp(ports) => {
            (passage.stage, passage.traces, passage.numbers) = (Stage::Datagram, 0, [0; 2]);
            ports
        }
        Transport::IcmpError => return reported(packet, env, &link, &ip, passage),
        Transport::EchoRequest => return Err(Reason::NotOurs),
        Transport::Other if ip.protocol == ip.family.icmp() => return Err(Reason::NotOurs),
        Transport::Other => return Err(unknown(env, &ip)),
    };
    passage.arrives(&ip, ports, env.now_ticks());
    let vip = vip_of(env, passage);
    passage.is_forward = vip.is_some();
    if !is_possible {
        return if passage.is_forward { Err(Reason::MalformedTcp) } else { nobodys(env, &ip, ports, None) };
    }
    let bytes = packet.len_of(ip.at + ip.length as usize) as u64;
    match vip {
        Some(vip) if addressed(packet, env, vip, &ip, passage)? == Chosen::Here => {
            env.count_traffic(vip.vip, passage.peer.backend, bytes, passage.begins());
            return Ok(Outcome { reason: Reason::Local, verdict: Verdict::Pass });
        }
        Some(_) => {}
        None if !replied(env, passage) => return nobodys(env, &ip, ports, Some(passage.stage)),
        None if ip.ttl <= 1 => return Err(Reason::Ttl),
        None => {}
    }
    match way::find(packet, env, &ip, passage) {
        Err(Reason::TooBig) => {
            env.tell_too_big(packet, passage.hop.mtu)?;
            return Ok(Outcome { reason: Reason::TooBig, verdict: Verdict::Transmit });
        }
        found => found?,
    }
    rewrite::translate(packet, &ip, passage)?;
    way::send(packet, &link, &ip, passage)?;
    let Some(vip) = vip else {
        return Ok(Outcome { reason: Reason::NatReturned, verdict: passage.verdict });
    };
    env.count_traffic(vip.vip, passage.entry.backend, bytes, passage.is_new);
    Ok(Outcome { reason: Reason::Forwarded, verdict: passage.verdict })
}

/// An ICMP error about a flow of ours.
#[inline(always)]
fn reported<P: Packet, E: NatEnv>(
    packet: &mut P,
    env: &E,
    link: &Link,
    ip: &Ip,
    passage: &mut Passage,
) -> Result<Outcome, Reason> {
    if !quote::find(packet, env, ip, passage)? {
        let is_vip = vip_of(env, passage).is_some();
        return Err(if is_vip { Reason::NatUnknown } else { unknown(env, ip) });
    }
    if ip.ttl <= 1 {
        return Err(Reason::Ttl);
    }
    passage.is_forward = false;
    way::find(packet, env, ip, passage)?;
    rewrite::translate_error(packet, ip, passage)?;
    rewrite::translate_quote(packet, ip, quote::at(ip), passage)?;
    way::send(packet, link, ip, passage)?;
    Ok(Outcome { reason: Reason::NatError, verdict: passage.verdict })
}

/// A packet for a VIP: finds its flow, or opens one.
#[inline(always)]
fn addressed<P: Packet, E: NatEnv>(
    packet: &P,
    env: &E,
    vip: &VipEntry,
    ip: &Ip,
    passage: &mut Passage,
) -> Result<Chosen, Reason> {
    if exceeds(env, ip, passage) {
        return Err(Reason::RateLimited);
    }
    let found = if ip.ttl <= 1 { Err(Reason::Ttl) } else { known(env, passage) };
    if passage.is_new || matches!(found, Err(Reason::Ttl | Reason::NatUnknown)) {
        // Nothing is known of flows to this box itself.
        if open::choose(packet, env, vip, ip, passage)? == Chosen::Here {
            return Ok(Chosen::Here);
        }
        found?;
        open::open(env, vip, passage)?;
    }
    found.map(|()| Chosen::There)
}

/// As in [`crate::ingress`]: whether the source of a SYN opened more flows than it may.
#[inline(always)]
fn exceeds<E: Walk>(env: &E, ip: &Ip, passage: &Passage) -> bool {
    matches!(passage.stage, Stage::Opening)
        && env.meta().is_some_and(|meta| meta.flags & FLAG_LIMITED != 0)
        && env.exceeds(ip.source)
}

/// The VIP that a packet is for, if it is one that translates: as [`Walk::find_vip`], in parts.
///
/// A function of its own, as most of those below: each has its own part of the stack, for as long as it runs.
#[inline(never)]
fn vip_of<'e, E: NatEnv>(env: &'e E, passage: &Passage) -> Option<&'e VipEntry> {
    let FlowKey { destination, destination_port, protocol, .. } = passage.key;
    let wanted = Wanted::new(Address::new(destination), destination_port, protocol);
    let vip = match vip_under(env, &wanted) {
        Some(vip) => vip,
        None if env.meta()?.flags & FLAG_WIDE_VIPS != 0 => {
            vip_under(env, &env.locate(wanted).key(wanted.address)?)?
        }
        None => return None,
    };
    if vip.flags & FORWARD_NAT != 0 { Some(vip) } else { None }
}

/// The entry of a key.
#[inline(never)]
fn vip_under<'e, E: NatEnv>(env: &'e E, key: &Wanted) -> Option<&'e VipEntry> {
    directory::find_key(env, *key)
}

impl Passage {
    /// False: no stack that means it ever sends these flags.
    #[inline(always)]
    fn tcp(&mut self, flags: TcpFlags, [a, b, c, d]: [u16; 4]) -> bool {
        let Some(stage) = Stage::of(flags) else { return false };
        self.stage = stage;
        self.numbers = [number(a, b), number(c, d)];
        self.traces = if flags.0 & TcpFlags::RST != 0 {
            RST
        } else if flags.0 & TcpFlags::FIN != 0 {
            FIN
        } else {
            0
        };
        true
    }

    #[inline(always)]
    fn arrives(&mut self, ip: &Ip, ports: Ports, now: u32) {
        self.key = FlowKey {
            source: ip.source.bytes(),
            destination: ip.destination.bytes(),
            source_port: ports.source,
            destination_port: ports.destination,
            protocol: ip.protocol,
            pad: [0; 3],
        };
        (self.now, self.is_new) = (now, false);
    }

    /// Whether it may begin a flow; then it may also begin one anew.
    #[inline(always)]
    const fn begins(&self) -> bool {
        matches!(self.stage, Stage::Opening | Stage::Datagram)
    }

    /// What lies under the packet's key in a table is of no use: what may begin a flow replaces it, anything else is
    /// dropped for `reason`.
    #[inline(always)]
    fn begin_anew<E: NatEnv>(&mut self, env: &E, table: Table, reason: Reason) -> Result<(), Reason> {
        if !self.begins() {
            return Err(reason);
        }
        env.nat_remove(table, &self.key);
        env.count_nat(NatEvent::Reopened);
        self.is_new = true;
        Ok(())
    }
}

/// A sequence number from its two words.
#[inline(always)]
const fn number(high: u16, low: u16) -> u32 {
    (u16::from_be(high) as u32) << 16 | u16::from_be(low) as u32
}

/// Finds the entry of a flow that lives, or says that the packet is new. Err: it must not begin one.
#[inline(never)]
fn known<E: NatEnv>(env: &E, passage: &mut Passage) -> Result<(), Reason> {
    let Some(cell) = env.nat(Table::Established, &passage.key) else {
        return half_open(env, passage);
    };
    cell.read(&mut passage.entry);
    if is_lost(env, &passage.entry) {
        return passage.begin_anew(env, Table::Established, Reason::BackendDown);
    }
    if is_over(env, passage) {
        return passage.begin_anew(env, Table::Established, Reason::NatUnknown);
    }
    passage.note(&cell, passage.traces);
    Ok(())
}

/// Whether an established flow has ended: it has expired, or this SYN comes after both ends were done or one has
/// reset it. Looks at the peer's entry only where that can be.
#[inline(always)]
fn is_over<E: NatEnv>(env: &E, passage: &mut Passage) -> bool {
    // A flow begins with a SYN of the client's: one from a backend begins and ends nothing.
    let is_syn = passage.is_forward && matches!(passage.stage, Stage::Opening);
    // The shortest life of a flow that closes neither way; a busy flow is younger.
    if !is_syn && !is_idle(passage.entry.seen, passage.now, UDP_TICKS) {
        return false;
    }
    passage.reverse = passage.entry.peer(passage.key.protocol);
    let Some(cell) = env.nat(Table::Established, &passage.reverse) else { return true };
    cell.read(&mut passage.peer);
    let Passage { entry, peer, .. } = passage;
    let idle = idle_ticks(passage.key.protocol, [entry.flags, peer.flags]);
    is_syn && idle < TCP_TICKS || is_idle(later(entry.seen, peer.seen), passage.now, idle)
}

/// Health says that the backend of this flow takes nothing. One that left the config, or whose id is another's by
/// now, is not asked after: its flows end by themselves.
#[inline(always)]
fn is_lost<E: NatEnv>(env: &E, entry: &NatEntry) -> bool {
    let both = PRESENT | DOWN;
    env.backend(entry.backend)
        .is_some_and(|backend| backend.generation == entry.generation && backend.flags & both == both)
}

/// Finds the entry of a half-open flow, and establishes it if this packet shows that its client hears the backend.
#[inline(always)]
fn half_open<E: NatEnv>(env: &E, passage: &mut Passage) -> Result<(), Reason> {
    let Some(cell) = env.nat(Table::Opening, &passage.key) else {
        passage.is_new = passage.begins();
        return if passage.is_new { Ok(()) } else { Err(Reason::NatUnknown) };
    };
    cell.read(&mut passage.entry);
    passage.reverse = passage.entry.peer(passage.key.protocol);
    let Some(back) = env.nat(Table::Opening, &passage.reverse) else {
        return passage.begin_anew(env, Table::Opening, Reason::NatUnknown);
    };
    back.read(&mut passage.peer);
    let is_own = passage.peer.peer(passage.key.protocol) == passage.key;
    if !is_own || is_idle(passage.peer.seen, passage.now, OPENING_TICKS) {
        return passage.begin_anew(env, Table::Opening, Reason::NatUnknown);
    }
    // Refused by the backend, and tried again; or nobody is there to refuse it.
    let is_again = matches!(passage.stage, Stage::Opening) && passage.peer.flags & RST != 0;
    if is_again || is_lost(env, &passage.entry) {
        return passage.begin_anew(env, Table::Opening, Reason::BackendDown);
    }
    let is_heard = match passage.stage {
        Stage::Opening => false,
        Stage::Datagram => passage.peer.flags & ANSWERED != 0,
        // It says nothing that can be checked here; the backend can.
        Stage::Closing if passage.traces == RST => false,
        Stage::Running | Stage::Closing if acknowledges(passage) => true,
        Stage::Running | Stage::Closing | Stage::Answering | Stage::Reported => {
            return Err(Reason::NatUnknown);
        }
    };
    note(&back, &passage.peer, if is_heard { HEARD } else { 0 }, passage.now);
    if is_heard {
        establish(env, passage);
    }
    Ok(())
}

/// Whether the packet acknowledges the backend's SYN, and at most a mebibyte more; or an earlier one did.
#[inline(always)]
const fn acknowledges(passage: &Passage) -> bool {
    const MOST: u32 = 1 << 20;
    let [_, acknowledged] = passage.numbers;
    passage.peer.flags & HEARD != 0
        || passage.peer.flags & ANSWERED != 0 && acknowledged.wrapping_sub(passage.peer.expected) <= MOST
}

/// Moves a pair to the established ones, if there is room. See race 2 above for the order.
#[inline(always)]
fn establish<E: NatEnv>(env: &E, passage: &mut Passage) {
    (passage.entry.seen, passage.peer.seen) = (passage.now, passage.now);
    passage.entry.flags |= passage.traces;
    passage.peer.flags |= HEARD;
    // Taken: another core is establishing the same flow; no other flow can be there.
    let reverse = env.nat_insert(Table::Established, &passage.reverse, &passage.peer);
    if reverse == Err(Refusal::Full) {
        return env.count_nat(NatEvent::Refused);
    }
    match env.nat_insert(Table::Established, &passage.key, &passage.entry) {
        Ok(()) => env.count_nat(NatEvent::Established),
        Err(Refusal::Taken) => {}
        Err(Refusal::Full) => {
            env.nat_remove(Table::Established, &passage.reverse);
            return env.count_nat(NatEvent::Refused);
        }
    }
    env.nat_remove(Table::Opening, &passage.key);
    env.nat_remove(Table::Opening, &passage.reverse);
}

/// Finds the entry of what is for no VIP: a reply on its way back. False: there is none.
#[inline(never)]
fn replied<E: NatEnv>(env: &E, passage: &mut Passage) -> bool {
    if let Some(cell) = env.nat(Table::Established, &passage.key) {
        cell.read(&mut passage.entry);
        let is_over = is_over(env, passage);
        if !is_over {
            passage.note(&cell, passage.traces);
        }
        return !is_over;
    }
    let Some(cell) = env.nat(Table::Opening, &passage.key) else {
        // A flow that has been established since the first look is found there now.
        let Some(cell) = env.nat(Table::Established, &passage.key) else { return false };
        cell.read(&mut passage.entry);
        return true;
    };
    cell.read(&mut passage.entry);
    if is_idle(passage.entry.seen, passage.now, OPENING_TICKS) {
        return false;
    }
    let [sequence, _] = passage.numbers;
    let flags = match passage.stage {
        Stage::Answering => {
            cell.expect(sequence.wrapping_add(1));
            ANSWERED
        }
        Stage::Datagram => ANSWERED,
        Stage::Opening | Stage::Running | Stage::Closing | Stage::Reported => passage.traces,
    };
    passage.note(&cell, flags);
    true
}

/// A packet for no VIP and of no flow: a listener may want what is the kernel's.
#[inline(always)]
fn nobodys<E: Walk>(env: &E, ip: &Ip, ports: Ports, stage: Option<Stage>) -> Result<Outcome, Reason> {
    match (unknown(env, ip), env.meta()) {
        (Reason::NotOurs, Some(meta)) => Ok(walk::reach(env, meta, &Flow::new(ip, ports), stage)),
        (reason, _) => Err(reason),
    }
}

/// What is for a source of ours but of no flow is dropped; everything else is the kernel's.
#[inline(always)]
fn unknown<E: Walk>(env: &E, ip: &Ip) -> Reason {
    match env.vip_flags(ip.destination) {
        Some(vip) if vip.flags & NAT_SOURCE != 0 => Reason::NatUnknown,
        _ => Reason::NotOurs,
    }
}

/// Whether the port of a half-open flow may be given to another.
#[inline(always)]
const fn is_reusable(entry: &NatEntry, now: u32) -> bool {
    is_idle(entry.seen, now, OPENING_REUSE_TICKS)
}

/// The same of an established flow; `peer` is its forward entry, where there is one that points at it.
#[inline(always)]
fn is_reusable_established(entry: &NatEntry, peer: Option<&NatEntry>, protocol: u8, now: u32) -> bool {
    let (seen, flags) = match peer {
        Some(peer) => (later(entry.seen, peer.seen), [entry.flags, peer.flags]),
        None => (entry.seen, [entry.flags | RST, 0]),
    };
    is_idle(seen, now, idle_ticks(protocol, flags).wrapping_add(GRACE_TICKS))
}
