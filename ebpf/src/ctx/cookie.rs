//! Sockets and cookies of the kernel, for `lb_cookie`.

use core::mem::size_of;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NOT_FWDED, bpf_fib_lookup, bpf_sock, bpf_sock_tuple,
    },
    helpers::generated as helpers,
};
use lb_abi::steer::STEER_COOKIES;
use lb_ebpf::{
    cookie::{CookieEnv, Syn},
    numbers::{Family, protocol},
    parse::Ip,
};

use super::{
    AF_INET, AF_INET6,
    kernel::{Kernel, double_words},
    steer::bound_to,
};
use crate::maps;

/// `BPF_F_CURRENT_NETNS` of linux/bpf.h: the interface's network namespace.
const CURRENT_NETNS: u64 = -1i64 as u64;
/// `BPF_TCP_LISTEN`.
const LISTEN: u32 = 10;
/// Longest TCP header, in words of four bytes.
const TCP_WORDS: usize = 15;
/// Longer one of the two plain IP headers, likewise.
const IP_WORDS: usize = 10;
/// `BPF_FIB_LOOKUP_SKIP_NEIGH` of linux/bpf.h is newer than 6.1: the neighbour is looked for, and not used.
const NO_FLAGS: u32 = 0;

impl CookieEnv for Kernel<'_> {
    #[inline(always)]
    fn cookie(&self, syn: &Syn) -> Option<u32> {
        let sk = listener(self, syn);
        if sk.is_null() {
            return None;
        }
        let cookie = if may_answer(self, sk, &syn.ip) { cookie_of(self, sk, syn) } else { None };
        // SAFETY: the socket that was looked up, and not used any more.
        unsafe { helpers::bpf_sk_release(sk.cast()) };
        cookie
    }

    #[inline(always)]
    fn mtu(&self) -> u16 {
        let mut mtu = 0;
        // SAFETY: the context is the kernel's, and the answer goes to our stack. It is written whatever else the helper
        // says, save for an interface that is gone; then a TCP header is all that is offered, and the peer does not care.
        unsafe { helpers::bpf_check_mtu(self.ctx.as_ptr(), 0, &raw mut mtu, 0, 0) };
        if mtu > u16::MAX as u32 { u16::MAX } else { mtu as u16 }
    }
}

/// Whoever has the SYN's flow, or listens for it: `lb_lookup` is asked, too. Null, or to be released.
#[inline(always)]
fn listener(kernel: &Kernel<'_>, syn: &Syn) -> *mut bpf_sock {
    let Syn { ip, ports, .. } = syn;
    // SAFETY: integers; all zero is a flow.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = match ip.family {
        Family::V4 => {
            // SAFETY: integers, whichever of the two it is.
            let flow = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
            flow.saddr = u32::from_ne_bytes(ip.source.last());
            flow.daddr = u32::from_ne_bytes(ip.destination.last());
            (flow.sport, flow.dport) = (ports.source.0, ports.destination.0);
            size_of_val(flow)
        }
        Family::V6 => {
            // SAFETY: as above.
            let flow = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
            (flow.saddr, flow.daddr) = (double_words(ip.source), double_words(ip.destination));
            (flow.sport, flow.dport) = (ports.source.0, ports.destination.0);
            size_of_val(flow)
        }
    };
    // SAFETY: the context is the kernel's, and the flow `size` bytes of our stack.
    unsafe { helpers::bpf_skc_lookup_tcp(kernel.ctx.as_ptr(), &raw mut tuple, size as u32, CURRENT_NETNS, 0) }
}

/// Whether a socket listens for one of our listeners that takes cookies, at an address of this box.
#[inline(always)]
fn may_answer(kernel: &Kernel<'_>, sk: *mut bpf_sock, ip: &Ip) -> bool {
    // SAFETY: the verifier knows `sk` as a socket, not null, and its state as readable.
    if unsafe { (&raw const (*sk).state).read_volatile() } != LISTEN {
        return false;
    }
    let Some(key) = bound_to(sk, protocol::TCP) else { return false };
    // SAFETY: as in `Env::vip`.
    let Some(entry) = (unsafe { maps::STEER_LISTENERS.get(&key) }) else { return false };
    if entry.flags & STEER_COOKIES == 0 {
        return false;
    }
    // Whatever is bound to all addresses also listens, as far as the kernel knows here, for what is only routed by us.
    key.address == ip.destination.bytes() || is_local(kernel, ip)
}

/// Whether a packet would not be routed on: its destination is this box's, or nobody's.
#[inline(always)]
fn is_local(kernel: &Kernel<'_>, ip: &Ip) -> bool {
    let Some(room) = maps::QUESTION.get_ptr_mut(kernel.room) else { return false };
    // SAFETY: as in `Env::route`.
    let params = unsafe {
        room.write([0; _]);
        &mut *room.cast::<bpf_fib_lookup>()
    };
    params.ifindex = kernel.ctx.ingress_ifindex() as u32;
    params.l4_protocol = protocol::TCP;
    match ip.family {
        Family::V4 => {
            params.family = AF_INET;
            params.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(ip.source.last());
            params.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(ip.destination.last());
        }
        Family::V6 => {
            params.family = AF_INET6;
            params.__bindgen_anon_3.ipv6_src = double_words(ip.source);
            params.__bindgen_anon_4.ipv6_dst = double_words(ip.destination);
        }
    }
    let size = size_of::<bpf_fib_lookup>() as i32;
    // SAFETY: as in `Env::route`.
    let answer =
        unsafe { helpers::bpf_fib_lookup(kernel.ctx.as_ptr(), &raw mut *params, size, NO_FLAGS) } as u32;
    // Where the interface does not forward the kernel does not say; it drops what is not its own, and whoever is answered
    // here gets no further.
    answer == BPF_FIB_LKUP_RET_NOT_FWDED || answer == BPF_FIB_LKUP_RET_FWD_DISABLED
}

/// The cookie, where the kernel would send one now.
#[inline(always)]
fn cookie_of(kernel: &Kernel<'_>, sk: *mut bpf_sock, syn: &Syn) -> Option<u32> {
    // Headers with options are of any length, which the helper takes from our stack only.
    let (mut ip, mut tcp) = ([0u32; IP_WORDS], [0u32; TCP_WORDS]);
    let (ip_len, tcp_len) = (syn.ip.family.header_len() as u32, syn.header_len as u32);
    if tcp_len < 20 || tcp_len > 4 * TCP_WORDS as u32 {
        return None;
    }
    let at = syn.ip.at as u32;
    // SAFETY: the context is the kernel's; both headers fit where they go.
    let cookie = unsafe {
        let ctx = kernel.ctx.ctx;
        if helpers::bpf_xdp_load_bytes(ctx, at, ip.as_mut_ptr().cast(), ip_len) != 0
            || helpers::bpf_xdp_load_bytes(ctx, at + ip_len, tcp.as_mut_ptr().cast(), tcp_len) != 0
        {
            return None;
        }
        helpers::bpf_tcp_gen_syncookie(
            sk.cast(),
            ip.as_mut_ptr().cast(),
            ip_len,
            tcp.as_mut_ptr().cast(),
            tcp_len,
        )
    };
    // Above the cookie stands the MSS that it remembers. Negative: none now.
    if cookie < 0 { None } else { Some(cookie as u32) }
}
