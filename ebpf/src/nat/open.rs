//! A new flow: a backend, a port of this core's own part, and both entries.

use lb_abi::{
    be::Be16,
    flow::FlowKey,
    nat::{FORWARD, NatEntry, NatEvent},
    reason::Reason,
    vip::{FLOWS_NONE, VipEntry},
};

use super::{NatCell as _, NatEnv, Passage, Refusal, Table, is_reusable, is_reusable_established};
use crate::{
    address::Address,
    choose,
    flow::Flow,
    packet::Packet,
    parse::{Ip, Ports},
};

/// Ports that one packet tries. The walk goes on where it stopped, so a repeated SYN tries others.
const TRIES: u32 = 8;

/// Where a new flow's backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chosen {
    /// Elsewhere.
    There,
    /// It is this box: the kernel has the packet as it came, nothing is translated, and nothing is remembered.
    Here,
}

/// Chooses a backend: writes the reverse entry into `passage`, and its key as far as that does not need a source.
#[inline(never)]
pub(super) fn choose<P: Packet, E: NatEnv>(
    packet: &P,
    env: &E,
    vip: &VipEntry,
    ip: &Ip,
    passage: &mut Passage,
) -> Result<Chosen, Reason> {
    let FlowKey { source, destination, source_port, destination_port, protocol, .. } = passage.key;
    let ports = Ports { source: source_port, destination: destination_port };
    let flow = Flow { source: Address::new(source), destination: Address::new(destination), ports, protocol };
    // Entries are the memory of translated flows: no other record is looked for.
    let vip = &VipEntry { flags: vip.flags | FLOWS_NONE, ..*vip };
    // Control counts entries.
    let lead = choose::lead(packet, env, ip, vip, &flow, passage.stage, flow.hash(vip.hash_key));
    let choice = choose::select(env, None, vip, &flow, passage.stage, lead)?;
    if choice.is_local {
        passage.peer.backend = choice.id;
        return Ok(Chosen::Here);
    }
    let own = env.backend(choice.id).map_or(Be16(0), |backend| backend.port);
    let port = if own.0 == 0 { passage.key.destination_port } else { own };
    // Config lets no pool of the other family stand behind such a VIP.
    if choice.address.family() != Address::new(passage.key.destination).family() {
        return Err(Reason::NoBackend);
    }
    passage.reverse = FlowKey {
        source: choice.address.bytes(),
        destination: [0; 16],
        source_port: port,
        destination_port: Be16(0),
        protocol: passage.key.protocol,
        pad: [0; 3],
    };
    passage.peer = NatEntry {
        source: passage.key.destination,
        destination: passage.key.source,
        source_port: passage.key.destination_port,
        destination_port: passage.key.source_port,
        backend: choice.id,
        vip: vip.vip as u16,
        generation: choice.generation,
        expected: 0,
        flags: 0,
        seen: passage.now,
    };
    Ok(Chosen::There)
}

/// Opens a flow to the backend that [`choose()`] left in `passage`: finds a source, writes both entries, and the forward
/// one into `passage`.
#[inline(never)]
pub(super) fn open<E: NatEnv>(env: &E, vip: &VipEntry, passage: &mut Passage) -> Result<(), Reason> {
    take_port(env, vip.vip, passage)?;
    // Field by field: whole, it would go by way of the stack.
    let Passage { entry, peer, reverse, .. } = passage;
    (entry.source, entry.destination) = (reverse.destination, reverse.source);
    (entry.source_port, entry.destination_port) = (reverse.destination_port, reverse.source_port);
    (entry.backend, entry.vip, entry.generation) = (peer.backend, peer.vip, peer.generation);
    (entry.expected, entry.flags, entry.seen) = (0, FORWARD, peer.seen);
    match env.nat_insert(Table::Opening, &passage.key, &passage.entry) {
        Ok(()) => {
            env.count_nat(NatEvent::Opened);
            Ok(())
        }
        Err(Refusal::Full) => {
            env.nat_remove(Table::Opening, &passage.reverse);
            Err(Reason::FlowTableFull)
        }
        Err(Refusal::Taken) => {
            // Our own port goes back; the other core's entry has its reverse entry already.
            env.nat_remove(Table::Opening, &passage.reverse);
            env.count_nat(NatEvent::Raced);
            let Some(cell) = env.nat(Table::Opening, &passage.key) else { return Err(Reason::NatUnknown) };
            cell.read(&mut passage.entry);
            Ok(())
        }
    }
}

/// Finds a source for the reverse entry, writes it into its key, and the entry under that.
#[inline(always)]
fn take_port<E: NatEnv>(env: &E, vip: u32, passage: &mut Passage) -> Result<(), Reason> {
    let pool = env.nat_pool(vip).ok_or(Reason::NatPortsExhausted)?;
    for _ in 0..TRIES {
        let (core, position) = env.nat_position();
        let (index, port) = pool.place(core, position).ok_or(Reason::NatPortsExhausted)?;
        let source = env.nat_source(index).ok_or(Reason::NatPortsExhausted)?;
        // While control deals the addresses out anew, a place may be empty.
        let is_same_family = Address::new(source).family() == Address::new(passage.reverse.source).family();
        if !is_same_family || source == [0; 16] {
            continue;
        }
        (passage.reverse.destination, passage.reverse.destination_port) = (source, Be16::new(port));
        if take(env, passage) {
            return Ok(());
        }
    }
    Err(Reason::NatPortsExhausted)
}

/// Whether the place was free, or held by what has expired, and now holds the reverse entry.
///
/// The key is of this core's own part: only others' packets change what lies there, never their SYNs. A function
/// of its own, so that the loop above holds a call.
#[inline(never)]
fn take<E: NatEnv>(env: &E, passage: &mut Passage) -> bool {
    let now = passage.now;
    if env.nat_insert(Table::Opening, &passage.reverse, &passage.peer).is_err() {
        if let Some(cell) = env.nat(Table::Opening, &passage.reverse) {
            cell.read(&mut passage.other);
            if !is_reusable(&passage.other, now) {
                return false;
            }
        }
        env.nat_remove(Table::Opening, &passage.reverse);
        if env.nat_insert(Table::Opening, &passage.reverse, &passage.peer).is_err() {
            return false;
        }
        env.count_nat(NatEvent::Reused);
    }
    let Some(cell) = env.nat(Table::Established, &passage.reverse) else { return true };
    cell.read(&mut passage.other);
    let protocol = passage.reverse.protocol;
    passage.other_key = passage.other.peer(protocol);
    let mut is_whole = false;
    if let Some(cell) = env.nat(Table::Established, &passage.other_key) {
        cell.read(&mut passage.other_peer);
        is_whole = passage.other_peer.peer(protocol) == passage.reverse;
    }
    let peer = is_whole.then_some(&passage.other_peer);
    if !is_reusable_established(&passage.other, peer, protocol, now) {
        env.nat_remove(Table::Opening, &passage.reverse);
        return false;
    }
    // The forward entry first: no packet may go out by a port that is another flow's by then.
    if is_whole {
        env.nat_remove(Table::Established, &passage.other_key);
    }
    env.nat_remove(Table::Established, &passage.reverse);
    env.count_nat(NatEvent::Reused);
    true
}
