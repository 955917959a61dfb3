//! What stands around a program while its cost is measured; loaded by `lb-bench` alone.
//!
//! `BPF_PROG_TEST_RUN` repeats a program over one and the same frame, so a program that rewrites packets would
//! see its own output from the second run on. `bench_wrap` is what is repeated instead: it puts the head of the
//! frame back to where it was, writes the headers anew with the next of `flows` source addresses, and tail-calls
//! the measured program. It does the same work for every case (it moves the head even by nothing), so that its
//! cost, read off with an empty program in the measured place, can be taken from every case's. All are `xdp.frags`, because
//! only programs alike in that may call one another.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "link sections, helpers and the frame are unsafe")]

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX},
    helpers::generated as helpers,
    macros::{map, xdp},
    maps::{Array, PerCpuArray, ProgramArray},
    programs::XdpContext,
};
use lb_abi::bench::{HEAD_LEN, Plan};

/// `bpf_fib_lookup` and the clock are for programs that the GPL covers, too.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// One entry.
#[map]
static BENCH_PLAN: Array<Plan> = Array::with_max_entries(1, 0);
/// One entry: the measured program.
#[map]
static BENCH_PROGRAM: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// One entry: IPv4 packets that `bench_sink` took.
#[map]
static BENCH_SUNK: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Restores the packet and runs the measured program on it. `XDP_ABORTED`: it could not.
#[xdp(frags)]
fn bench_wrap(ctx: XdpContext) -> u32 {
    let Some(plan) = BENCH_PLAN.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: one thread runs this program, and control writes the plan before it does.
    let plan = unsafe { &mut *plan };
    // Hidden, or the difference would be taken in 32 bits, which the verifier allows to no pointer.
    let len = core::hint::black_box(ctx.data_end() - ctx.data());
    let delta = len as i32 - plan.frame_len as i32;
    // SAFETY: the context is the kernel's; addresses are taken after the move only.
    if unsafe { helpers::bpf_xdp_adjust_head(ctx.as_ptr().cast(), delta) } != 0 {
        return XDP_ABORTED;
    }
    plan.turn = plan.turn.wrapping_add(1);
    let source = (plan.turn & plan.flows_mask).wrapping_add(plan.source).to_be_bytes();
    let at = (plan.source_at as usize & (HEAD_LEN - 1)).min(HEAD_LEN - source.len());
    plan.head[at..at + 4].copy_from_slice(&source);
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + HEAD_LEN > end {
        return XDP_ABORTED;
    }
    // SAFETY: `HEAD_LEN` bytes of the frame, as just checked.
    unsafe { (start as *mut [u64; HEAD_LEN / 8]).write_unaligned(core::mem::transmute(plan.head)) };
    // SAFETY: map and context are the kernel's.
    unsafe { BENCH_PROGRAM.tail_call(&ctx, 0) };
    XDP_ABORTED
}

/// The first floor: a program that does nothing.
#[xdp(frags)]
fn bench_empty(_: XdpContext) -> u32 {
    XDP_PASS
}

/// The second floor: what it costs to send a packet back to where it came from.
#[xdp(frags)]
fn bench_swap(ctx: XdpContext) -> u32 {
    let start = ctx.data();
    if start + 12 > ctx.data_end() {
        return XDP_ABORTED;
    }
    let addresses = start as *mut [u16; 6];
    // SAFETY: twelve bytes of the frame, as just checked.
    unsafe {
        let [a, b, c, d, e, f] = addresses.read_unaligned();
        addresses.write_unaligned([d, e, f, a, b, c]);
    }
    XDP_TX
}

/// Where forwarded packets end: it counts those of IPv4 and drops them, and lets everything else pass.
#[xdp(frags)]
fn bench_sink(ctx: XdpContext) -> u32 {
    const TYPE_AT: usize = 12;
    const IPV4: u16 = 0x0800;
    let start = ctx.data();
    if start + TYPE_AT + 2 > ctx.data_end() {
        return XDP_PASS;
    }
    // SAFETY: two bytes of the frame, as just checked.
    let kind = unsafe { ((start + TYPE_AT) as *const u16).read_unaligned() };
    if kind != IPV4.to_be() {
        return XDP_PASS;
    }
    if let Some(count) = BENCH_SUNK.get_ptr_mut(0) {
        // SAFETY: this core's own counter; XDP programs are not interrupted by one another on a core.
        unsafe { *count += 1 };
    }
    XDP_DROP
}

/// Never called: nothing in the programs panics.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
