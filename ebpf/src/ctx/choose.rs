//! What leads packets beside slots, as global functions: see [`super::kernel`].

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_abi::limit::Allowance;
use lb_ebpf::{address::Address, env::AllowanceCell, limit, quic, source};

use super::{
    frame::XdpPacket,
    kernel::{Kernel, with_maps},
};

/// [`quic::server`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn lb_quic_server(ctx: *mut xdp_md, at: u64, vip: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    // No headers are longer; so the verifier knows it, too.
    let at = at as usize & 0x7f;
    quic::server(&XdpPacket::new(&ctx), &Kernel::new(&ctx), at, vip as u32) as u64
}

/// [`limit::exceeds`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn lb_exceeds(high: u64, low: u64) -> u64 {
    with_maps(|maps| limit::exceeds(maps, Address::of_halves(high, low)) as u64)
}

/// [`source::table`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn lb_source_table(high: u64, low: u64, vip: u64) -> u64 {
    with_maps(|maps| source::table(maps, Address::of_halves(high, low), vip as u32) as u64)
}

/// A value of map `NEW_FLOWS` as one word.
pub(super) struct Left(pub(super) *mut u64);

impl AllowanceCell for Left {
    #[inline(always)]
    fn load(&self) -> Allowance {
        // SAFETY: a value of the map, which the kernel keeps mapped while the program runs; an element given to another source meanwhile lets one flow of it more or less
        // through.
        Allowance::from_word(unsafe { self.0.read_volatile() })
    }

    #[inline(always)]
    fn store(&self, allowance: Allowance) {
        // SAFETY: as in `load`.
        unsafe { self.0.write_volatile(allowance.to_word()) };
    }
}
