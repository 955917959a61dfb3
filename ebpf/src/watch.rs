//! Programs that watch the packet path at work: the same walk, with a witness between it and the kernel.

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_PASS},
    programs::XdpContext,
};
use lb_abi::trace::Trace;
use lb_ebpf::{
    ingress,
    packet::Packet,
    witness::{self, Dry, Notes, Witness},
};

use crate::{
    ctx::{Kernel, XdpPacket},
    maps,
};

/// A trace in a map.
struct InMap(*mut Trace);

impl Notes for InMap {
    #[inline(always)]
    fn change(&self, edit: impl FnOnce(&mut Trace)) {
        // SAFETY: a value of a map, which the kernel keeps mapped while the program runs. It is this run's alone:
        // of `WHY` there is one user, who waits for the program's end. No edit calls another.
        edit(unsafe { &mut *self.0 });
    }
}

/// A frame that is to have come in by some interface.
struct Pretended<'a> {
    frame: XdpPacket<'a>,
    ingress: u32,
}

impl Packet for Pretended<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.frame.len()
    }

    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u16; N]> {
        self.frame.load(at)
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, at: usize, words: [u16; N]) -> Option<()> {
        self.frame.store(at, words)
    }

    #[inline(always)]
    fn move_head(&mut self, delta: i32) -> Option<()> {
        self.frame.move_head(delta)
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.ingress
    }
}

/// Answers the question in `WHY`. `XDP_ABORTED`: there is none.
#[inline(always)]
pub(crate) fn why(ctx: &XdpContext) -> u32 {
    let Some(why) = maps::WHY.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: the map's one entry; control wrote it before it ran the program, and reads it after.
    let (ingress, trace) = unsafe { ((*why).ingress, InMap(&raw mut (*why).trace)) };
    let kernel = Kernel::new(ctx);
    let verdict = ingress::ingress(
        &mut Pretended { frame: XdpPacket::new(ctx), ingress },
        &Witness::<_, _, Dry>::new(&kernel, &trace),
    );
    trace.change(|trace| witness::end(trace, verdict, ingress));
    XDP_PASS
}
