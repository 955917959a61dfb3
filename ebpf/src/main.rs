//! The object: map statics and entry points around the pure library. Built for `bpfel-unknown-none` only.
//!
//! Pins and sizes are the loader's: maps carry the names of `lb_abi::names`, and the loader pins them by
//! name. The version of the contract can be read before anything is loaded: symbol `LB_ABI_VERSION` in
//! section `.rodata` is a little-endian `u32` (any ELF reader: symbol value is the offset into the section's
//! data).
//!
//! XDP programs are `xdp.frags`: frames of several buffers (jumbo frames) run here, too. Headers lie in the first one.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(unsafe_code, reason = "link sections and exported names are unsafe attributes")]

mod ctx;
mod maps;
mod watch;

use aya_ebpf::{
    Global,
    bindings::xdp_action::XDP_PASS,
    macros::{classifier, sk_lookup, sk_reuseport, xdp},
    programs::{SkLookupContext, SkReuseportContext, TcContext, XdpContext},
};
use lb_abi::ABI_VERSION;
use lb_ebpf::{cookie, decap, ingress, nat};

use crate::ctx::{frame::XdpPacket, kernel::Kernel};

/// Checked by the loader before it loads anything of this object.
#[unsafe(no_mangle)]
static LB_ABI_VERSION: Global<u32> = Global::new(ABI_VERSION);

/// The helpers for clock and routes are for programs that the GPL covers, too.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The balancer, on its own interfaces.
#[xdp(frags)]
fn lb_ingress(ctx: XdpContext) -> u32 {
    watch::hand_over(&ctx);
    let kernel = Kernel::new(&ctx);
    ctx::action(&ctx, ingress::ingress(&mut XdpPacket::new(&ctx), &kernel))
}

/// Translated flows; called by `lb_ingress`, attached nowhere.
#[xdp(frags)]
fn lb_nat(ctx: XdpContext) -> u32 {
    let kernel = Kernel::new(&ctx);
    let Some(passage) = ctx::nat::passage() else { return XDP_PASS };
    ctx::action(&ctx, nat::nat(&mut XdpPacket::new(&ctx), &kernel, passage))
}

/// Answers SYNs of a flood with cookies; called by `lb_ingress` and `lb_nat`, attached nowhere.
#[xdp(frags)]
fn lb_cookie(ctx: XdpContext) -> u32 {
    let kernel = Kernel::new(&ctx);
    ctx::action(&ctx, cookie::cookie(&mut XdpPacket::new(&ctx), &kernel))
}

/// As `lb_ingress`, while a capture is running: see `lb_abi::names::PROGRAM_CAPTURE`.
#[xdp(frags)]
fn lb_capture(ctx: XdpContext) -> u32 {
    watch::capture(&ctx)
}

/// Its second part.
#[xdp(frags)]
fn lb_capture_walk(ctx: XdpContext) -> u32 {
    watch::capture_walk(&ctx)
}

/// Its last part.
#[xdp(frags)]
fn lb_capture_show(ctx: XdpContext) -> u32 {
    watch::capture_show(&ctx)
}

/// What `lb_ingress` would do, for an operator: see `lb_abi::names::PROGRAM_WHY`.
#[xdp(frags)]
fn lb_why(ctx: XdpContext) -> u32 {
    watch::why(&ctx)
}

/// The far end of IPIP, on the interface of a backend without a tunnel device.
#[xdp(frags)]
fn lb_decap(ctx: XdpContext) -> u32 {
    let kernel = Kernel::new(&ctx);
    ctx::action(&ctx, decap::decap(&mut XdpPacket::new(&ctx), &kernel))
}

/// Lets everything pass: see `lb_abi::names::PROGRAM_PASS`.
#[xdp(frags)]
fn lb_pass(_: XdpContext) -> u32 {
    XDP_PASS
}

/// Gives a new connection or datagram to a worker's socket, and the connections that wait at a socket which closes to
/// another worker's. It always passes: without a choice, the kernel chooses.
#[sk_reuseport(migrate)]
fn lb_steer(ctx: SkReuseportContext) -> u32 {
    ctx::steer::steer(&ctx);
    ctx::SK_PASS
}

/// Gives whole prefixes and port ranges to a listener. It always passes: without a choice, the kernel searches on.
#[sk_lookup]
fn lb_lookup(ctx: SkLookupContext) -> u32 {
    ctx::lookup::lookup(&ctx);
    ctx::SK_PASS
}

/// Sends a health probe the way of a VIP's traffic.
#[classifier]
fn lb_probe_out(ctx: TcContext) -> i32 {
    ctx::probe::out(&ctx)
}

/// Brings its answer home.
#[classifier]
fn lb_probe_in(ctx: TcContext) -> i32 {
    ctx::probe::back(&ctx)
}

/// Never called: nothing in the programs panics. The verifier would refuse the endless loop if it were
/// reachable.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
