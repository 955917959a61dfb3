//! Sockets of a reuseport group.

use core::{mem::size_of, ptr};

use aya_ebpf::{bindings::bpf_sock, helpers::generated as helpers, programs::SkReuseportContext};
use lb_abi::{
    be::Be16,
    bounds::WORKERS_MAX,
    steer::{LOAD_LAGGING, MODE_CORE, STEER_LOOKED_UP, STEER_RELIEVE, SteerCounters, SteerEntry, SteerKey},
};
use lb_ebpf::{address::Address, numbers::protocol};

use super::{AF_INET, AF_INET6, add_one, halves};
use crate::maps;

/// Chooses a socket for what the kernel is about to deliver, and counts how.
#[inline(always)]
pub(crate) fn steer(ctx: &SkReuseportContext) {
    let Some(key) = steer_key(ctx) else { return };
    // SAFETY: as in `Env::vip`.
    let Some(entry) = (unsafe { maps::STEER_LISTENERS.get(&key) }) else { return };
    let Some(counters) = maps::STEER_COUNTERS.get_ptr_mut(entry.listener) else { return };
    if relieve(ctx, entry) {
        add_one(&maps::STEER_RELIEVED, entry.listener);
        return;
    }
    if entry.mode == MODE_CORE {
        if let Some(worker) = worker_of_core()
            && choose(ctx, entry, worker)
        {
            // SAFETY: this core's own counters. A receive in process context may lose one to an interrupt.
            unsafe { (*counters).by_core += 1 };
            return;
        }
        // SAFETY: as above.
        unsafe { (*counters).missing += 1 };
    }
    if choose(ctx, entry, worker_of_hash(ctx.hash(), entry.workers)) {
        // SAFETY: as above.
        unsafe { (*counters).by_hash += 1 };
    } else if entry.mode != MODE_CORE {
        // SAFETY: as above.
        unsafe { (*counters).missing += 1 };
    }
}

/// Gives a new connection whose worker lags to one that does not, and says whether it did. Datagrams stay: each would
/// be asked for anew, and a flow's would part.
#[inline(always)]
fn relieve(ctx: &SkReuseportContext, entry: &SteerEntry) -> bool {
    if entry.flags & STEER_RELIEVE == 0 || ctx.ip_protocol() != protocol::TCP as u32 {
        return false;
    }
    let hash = ctx.hash();
    let own = if entry.mode == MODE_CORE { worker_of_core() } else { None };
    let own = own.unwrap_or_else(|| worker_of_hash(hash, entry.workers));
    if load(own) < LOAD_LAGGING {
        return false;
    }
    // Others by other bits of the hash: two tries find one among many, and cost nothing when all lag.
    let (one, two) = (hash.rotate_left(11), hash.rotate_left(21));
    let other = worker_of_hash(one, entry.workers);
    let other = if load(other) < LOAD_LAGGING { other } else { worker_of_hash(two, entry.workers) };
    load(other) < LOAD_LAGGING && choose(ctx, entry, other)
}

#[inline(always)]
fn load(worker: u32) -> u32 {
    maps::STEER_LOADS.get(worker).copied().unwrap_or(0)
}

/// The address that the group is bound to.
#[inline(always)]
fn steer_key(ctx: &SkReuseportContext) -> Option<SteerKey> {
    // SAFETY: the verifier knows `sk` as a socket of the group, never null.
    let sk = unsafe { (*ctx.md).__bindgen_anon_3.sk };
    bound_to(sk, ctx.ip_protocol() as u8)
}

/// The address that a socket is bound to.
#[inline(always)]
pub(super) fn bound_to(sk: *mut bpf_sock, protocol: u8) -> Option<SteerKey> {
    // SAFETY: the verifier knows `sk` as a socket, not null, and its fields as readable.
    let (family, port, v4, v6) = unsafe {
        let family = ptr::read_volatile(&raw const (*sk).family);
        let port = ptr::read_volatile(&raw const (*sk).src_port);
        let v4 = ptr::read_volatile(&raw const (*sk).src_ip4);
        let v6 = [
            ptr::read_volatile(&raw const (*sk).src_ip6[0]),
            ptr::read_volatile(&raw const (*sk).src_ip6[1]),
            ptr::read_volatile(&raw const (*sk).src_ip6[2]),
            ptr::read_volatile(&raw const (*sk).src_ip6[3]),
        ];
        (family, port, v4, v6)
    };
    let address = if family == AF_INET as u32 {
        Address::v4(halves(v4)).bytes()
    } else if family == AF_INET6 as u32 {
        let [[a, b], [c, d], [e, f], [g, h]] = v6.map(halves);
        Address::v6([a, b, c, d, e, f, g, h]).bytes()
    } else {
        return None;
    };
    // `src_port` of struct bpf_sock is in host order, unlike everything else there.
    Some(SteerKey { address, port: Be16::new(port as u16), protocol, pad: 0 })
}

#[inline(always)]
fn worker_of_core() -> Option<u32> {
    // SAFETY: a helper without arguments.
    let core = unsafe { helpers::bpf_get_smp_processor_id() };
    maps::STEER_CORES.get(core).copied()?.checked_sub(1)
}

/// The kernel's hash of the 4-tuple also orders its connection table; multiplied by an odd constant (2^32 /
/// golden ratio), so that a worker's connections are not neighbours there.
#[inline(always)]
fn worker_of_hash(hash: u32, workers: u32) -> u32 {
    let mixed = hash.wrapping_mul(0x9e37_79b1);
    ((mixed as u64 * workers as u64) >> 32) as u32
}

/// Whether the worker's socket was there and is now chosen.
#[inline(always)]
fn choose(ctx: &SkReuseportContext, entry: &SteerEntry, worker: u32) -> bool {
    let index = entry.listener.wrapping_mul(WORKERS_MAX).wrapping_add(worker);
    if entry.flags & STEER_LOOKED_UP == 0 {
        return maps::STEER_SOCKETS.select_reuseport(ctx, index).is_ok();
    }
    let (map, mut index) = ((&raw const maps::LOOKUP_SOCKETS).cast_mut().cast(), index);
    // SAFETY: the context is the kernel's, the map one of those that the helper takes, and the index on our stack.
    unsafe { helpers::bpf_sk_select_reuseport(ctx.md, map, (&raw mut index).cast(), 0) == 0 }
}

const _: () = assert!(size_of::<SteerCounters>() == 24);
