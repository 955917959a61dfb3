//! `lb_lookup` over the kernel's search for a listener. What it does: [`lb_abi::lookup`].

use core::ptr;

use aya_ebpf::{maps::lpm_trie::Key, programs::SkLookupContext};
use lb_ebpf::address::Address;

use super::{AF_INET, AF_INET6, halves};
use crate::maps;

/// Workers whose sockets are looked for before a group counts as gone.
const TRIES: u32 = 4;

/// Names the socket of a listener, whose group `lb_steer` then goes through. Without one the kernel searches on.
#[inline(always)]
pub(crate) fn lookup(ctx: &SkLookupContext) {
    // SAFETY: fields of the kernel's context, which the verifier lets us read one by one.
    let (family, protocol, port, v4, v6) = unsafe {
        let lookup = ctx.lookup;
        (
            ptr::read_volatile(&raw const (*lookup).family),
            ptr::read_volatile(&raw const (*lookup).protocol),
            ptr::read_volatile(&raw const (*lookup).local_port),
            ptr::read_volatile(&raw const (*lookup).local_ip4),
            [
                ptr::read_volatile(&raw const (*lookup).local_ip6[0]),
                ptr::read_volatile(&raw const (*lookup).local_ip6[1]),
                ptr::read_volatile(&raw const (*lookup).local_ip6[2]),
                ptr::read_volatile(&raw const (*lookup).local_ip6[3]),
            ],
        )
    };
    let address = if family == AF_INET as u32 {
        Address::v4(halves(v4))
    } else if family == AF_INET6 as u32 {
        let [[a, b], [c, d], [e, f], [g, h]] = v6.map(halves);
        Address::v6([a, b, c, d, e, f, g, h])
    } else {
        return;
    };
    let Some(entry) = maps::LOOKUP_PREFIXES.get(Key::new(128, address.bytes())) else { return };
    for range in &entry.ranges {
        if range.protocol as u32 == protocol && range.first as u32 <= port && port <= range.last as u32 {
            // A socket that is gone has left the map; any other will do. Without one, whoever is bound to the address
            // is next.
            for worker in 0..TRIES {
                if maps::LOOKUP_SOCKETS.redirect_sk_lookup(ctx, range.socket as u32 + worker, 0).is_ok() {
                    return;
                }
            }
            return;
        }
    }
}
