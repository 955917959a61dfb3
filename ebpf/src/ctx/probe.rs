//! `lb_probe_out` and `lb_probe_in` over traffic control's packets. What they do: [`lb_abi::probe`].

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::generated as helpers,
    programs::TcContext,
};
use lb_abi::{
    be::Be16,
    probe::{PROBE_IPIP, PROBE_MARK, PROBE_NUMBER, ProbeEntry, port_index},
};
use lb_ebpf::{
    address::Address,
    numbers::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Family, IPV4_LEN, IPV6_LEN},
    probe::{Transport, difference, outer_v4, outer_v6, plain_v4, plain_v6},
};

use crate::maps;

/// TC_ACT_UNSPEC: whoever comes next decides.
const NEXT: i32 = -1;
/// TC_ACT_SHOT.
const DROP: i32 = 2;

/// Where addresses and checksums stand, from the Ethernet header on.
const V4_CHECK: usize = ETHERNET_LEN + 10;
const V4_SOURCE: usize = ETHERNET_LEN + 12;
const V4_DESTINATION: usize = ETHERNET_LEN + 16;
const V6_SOURCE: usize = ETHERNET_LEN + 8;
const V6_DESTINATION: usize = ETHERNET_LEN + 24;

/// A packet on its way out: nothing happens to one without the mark.
#[inline(always)]
pub(crate) fn out(ctx: &TcContext) -> i32 {
    // SAFETY: a field of the kernel's context, which the verifier lets us read.
    let mark = unsafe { (*ctx.skb.skb).mark };
    if mark & !PROBE_NUMBER != PROBE_MARK {
        return NEXT;
    }
    let Some(entry) = maps::PROBES.get(mark & PROBE_NUMBER) else { return NEXT };
    let (vip, backend) = (Address::new(entry.vip), Address::new(entry.backend));
    match vip.family() {
        Family::V4 => {
            let Ok(head) = ctx.load::<[u16; 10]>(ETHERNET_LEN) else { return NEXT };
            let [.., d0, d1] = head;
            let Some(transport) = plain_v4(&head) else { return NEXT };
            if [d0, d1] != backend.last_words() {
                return NEXT;
            }
            // From here on a packet that is not changed whole is not sent: it would be for nobody.
            if readdress_v4(ctx, transport, V4_DESTINATION, backend, vip).is_none() {
                return DROP;
            }
            before_v4(ctx, entry, &head, backend).map_or(DROP, |()| NEXT)
        }
        Family::V6 => {
            let Ok(head) = ctx.load::<[u16; 20]>(ETHERNET_LEN) else { return NEXT };
            let [.., a, b, c, d, e, f, g, h] = head;
            let Some(transport) = plain_v6(&head) else { return NEXT };
            if Address::v6([a, b, c, d, e, f, g, h]) != backend {
                return NEXT;
            }
            if readdress_v6(ctx, transport, V6_DESTINATION, backend, vip).is_none() {
                return DROP;
            }
            before_v6(ctx, entry, &head, backend).map_or(DROP, |()| NEXT)
        }
    }
}

/// A packet that came in for the host: an answer to a probe gets its backend's address as source.
#[inline(always)]
pub(crate) fn back(ctx: &TcContext) -> i32 {
    let protocol = Be16(ctx.skb.protocol() as u16).host();
    if protocol == ETHERTYPE_IPV4 {
        let Ok(head) = ctx.load::<[u16; 12]>(ETHERNET_LEN) else { return NEXT };
        let [a, b, c, d, e, f, g, h, i, j, _, port] = head;
        let Some(transport) = plain_v4(&[a, b, c, d, e, f, g, h, i, j]) else { return NEXT };
        let Some(entry) = expected(transport, port) else { return NEXT };
        let (vip, source) = (Address::new(entry.vip), Address::v4([g, h]));
        if source != vip {
            return NEXT;
        }
        return readdress_v4(ctx, transport, V4_SOURCE, vip, Address::new(entry.backend))
            .map_or(DROP, |()| NEXT);
    }
    if protocol != ETHERTYPE_IPV6 {
        return NEXT;
    }
    let Ok(head) = ctx.load::<[u16; 20]>(ETHERNET_LEN) else { return NEXT };
    let Some(transport) = plain_v6(&head) else { return NEXT };
    let Ok(ports) = ctx.load::<[u16; 2]>(ETHERNET_LEN + IPV6_LEN) else { return NEXT };
    let Some(entry) = expected(transport, ports[1]) else { return NEXT };
    let [_, _, _, _, a, b, c, d, e, f, g, h, ..] = head;
    let (vip, source) = (Address::new(entry.vip), Address::v6([a, b, c, d, e, f, g, h]));
    if source != vip {
        return NEXT;
    }
    readdress_v6(ctx, transport, V6_SOURCE, vip, Address::new(entry.backend)).map_or(DROP, |()| NEXT)
}

/// The probe that expects an answer on this port, in network order.
#[inline(always)]
fn expected(transport: Transport, port: u16) -> Option<&'static ProbeEntry> {
    let index = port_index(Be16(port).host(), matches!(transport, Transport::Udp));
    let number = maps::PROBE_PORTS.get(index).copied()?.checked_sub(1)?;
    maps::PROBES.get(number)
}

#[inline(always)]
fn readdress_v4(ctx: &TcContext, transport: Transport, at: usize, old: Address, new: Address) -> Option<()> {
    let (old, new) = (u32::from_ne_bytes(old.last()), u32::from_ne_bytes(new.last()));
    let flags = BPF_F_PSEUDO_HDR as u64 | may_be_absent(transport) | 4;
    ctx.l4_csum_replace(ETHERNET_LEN + IPV4_LEN + transport.check(), old as u64, new as u64, flags).ok()?;
    ctx.l3_csum_replace(V4_CHECK, old as u64, new as u64, 4).ok()?;
    ctx.store(at, &new, 0).ok()
}

/// A datagram's checksum of zero is none, and stays so.
#[inline(always)]
fn may_be_absent(transport: Transport) -> u64 {
    if matches!(transport, Transport::Udp) { BPF_F_MARK_MANGLED_0 as u64 } else { 0 }
}

#[inline(always)]
fn readdress_v6(ctx: &TcContext, transport: Transport, at: usize, old: Address, new: Address) -> Option<()> {
    let difference = difference(old.words(), new.words());
    let check = ETHERNET_LEN + IPV6_LEN + transport.check();
    let flags = BPF_F_PSEUDO_HDR as u64 | may_be_absent(transport);
    ctx.l4_csum_replace(check, 0, difference as u64, flags).ok()?;
    // An IPv6 header has no checksum that would make up for its address: of a sum that the device took over the whole
    // packet, the helper has taken away what the address is about to add. Refused where there is no such sum.
    // SAFETY: the context is the kernel's.
    unsafe { helpers::bpf_csum_update(ctx.skb.skb, difference) };
    ctx.store(at, &new.bytes(), 0).ok()
}

#[inline(always)]
fn before_v4(ctx: &TcContext, entry: &ProbeEntry, head: &[u16; 10], backend: Address) -> Option<()> {
    if entry.flags & PROBE_IPIP == 0 {
        return Some(());
    }
    let outer = outer_v4(head, Address::new(entry.outer), backend);
    ctx.adjust_room(IPV4_LEN as i32, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64).ok()?;
    ctx.store(ETHERNET_LEN, &outer, 0).ok()
}

#[inline(always)]
fn before_v6(ctx: &TcContext, entry: &ProbeEntry, head: &[u16; 20], backend: Address) -> Option<()> {
    if entry.flags & PROBE_IPIP == 0 {
        return Some(());
    }
    let outer = outer_v6(head, Address::new(entry.outer), backend);
    ctx.adjust_room(IPV6_LEN as i32, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 as u64).ok()?;
    ctx.store(ETHERNET_LEN, &outer, 0).ok()
}
