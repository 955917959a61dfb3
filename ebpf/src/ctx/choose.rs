//! What leads packets beside slots, as global functions: see [`super::kernel`].

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_ebpf::{address::Address, limit, quic, source};

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
    quic::server(&XdpPacket::new(&ctx), &Kernel::new(&ctx), at, vip as u32).to_word()
}

/// [`limit::exceeds`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn lb_exceeds(high: u64, low: u64) -> u64 {
    with_maps(|maps| limit::exceeds(maps, Address::of_halves(high, low)) as u64)
}

/// [`source::table`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn lb_source_table(high: u64, low: u64, vip: u64) -> u64 {
    with_maps(|maps| source::table(maps, Address::of_halves(high, low), vip as u32) as u64)
}
