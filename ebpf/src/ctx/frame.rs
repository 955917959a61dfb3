//! The frame of an XDP context.

use core::ptr;

use aya_ebpf::{helpers::generated as helpers, programs::XdpContext};
use lb_ebpf::{checksum::Sum, packet::Packet};

/// The frame of an XDP context.
pub(crate) struct XdpPacket<'a> {
    ctx: &'a XdpContext,
}

impl<'a> XdpPacket<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// Address of the first byte. Read anew each time, and so is the end: where two ways of a program meet, the compiler
    /// would else join what it read on both and only then make a 64-bit address of it, which the verifier takes for a
    /// number.
    #[inline(always)]
    fn start(&self) -> usize {
        // SAFETY: the context is the kernel's.
        (unsafe { (&raw const (*self.ctx.ctx).data).read_volatile() }) as usize
    }

    /// Address after the last byte.
    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: the context is the kernel's.
        (unsafe { (&raw const (*self.ctx.ctx).data_end).read_volatile() }) as usize
    }

    /// Address of `len` bytes at offset `at`, inside the frame.
    #[inline(always)]
    fn at(&self, at: usize, len: usize) -> Option<*mut u8> {
        let start = self.start() + at;
        if start + len > self.end() { None } else { Some(start as *mut u8) }
    }
}

impl Packet for XdpPacket<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.end() - self.start()
    }

    #[inline(always)]
    fn total_len(&self) -> usize {
        // SAFETY: the context is the kernel's.
        (unsafe { helpers::bpf_xdp_get_buff_len(self.ctx.ctx) }) as usize
    }

    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u16; N]> {
        let start = self.at(at, 2 * N)?;
        // SAFETY: `at` found 2 N bytes inside the frame, and the verifier checks that it did. Any bytes are
        // valid. Frames begin on an even address in every driver; where one did not, the load would still be
        // right.
        Some(unsafe { start.cast::<[u16; N]>().read() })
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, at: usize, words: [u16; N]) -> Option<()> {
        let start = self.at(at, 2 * N)?;
        // SAFETY: as in `load`; the frame is ours alone while the program runs.
        unsafe { start.cast::<[u16; N]>().write(words) };
        Some(())
    }

    #[inline(always)]
    fn load_doubles<const N: usize>(&self, at: usize) -> Option<[u32; N]> {
        let start = self.at(at, 4 * N)?;
        // SAFETY: as in `load`, but for the alignment, which is not asked for.
        Some(unsafe { start.cast::<[u32; N]>().read_unaligned() })
    }

    #[inline(always)]
    fn load_quads<const N: usize>(&self, at: usize) -> Option<[u64; N]> {
        let start = self.at(at, 8 * N)?;
        // SAFETY: as in `load_doubles`.
        Some(unsafe { start.cast::<[u64; N]>().read_unaligned() })
    }

    #[inline(always)]
    fn store_doubles<const N: usize>(&mut self, at: usize, doubles: [u32; N]) -> Option<()> {
        let start = self.at(at, 4 * N)?;
        // SAFETY: as in `store`, but for the alignment, which is not asked for.
        unsafe { start.cast::<[u32; N]>().write_unaligned(doubles) };
        Some(())
    }

    #[inline(always)]
    fn store_quads<const N: usize>(&mut self, at: usize, quads: [u64; N]) -> Option<()> {
        let start = self.at(at, 8 * N)?;
        // SAFETY: as in `store_doubles`.
        unsafe { start.cast::<[u64; N]>().write_unaligned(quads) };
        Some(())
    }

    #[inline(always)]
    fn sum<const LEN: usize>(&self, at: usize) -> Option<Sum> {
        let start = self.at(at, LEN)?;
        // What the helper takes at once before Linux 6.13.
        const PART: usize = 512;
        const { assert!(LEN.is_multiple_of(4) && LEN <= 3 * PART) };
        let part = |from: usize, len: usize| {
            // SAFETY: `at` found `LEN` bytes inside the frame, and these are some of them; the helper only reads.
            let sum = unsafe {
                let start = start.add(from).cast();
                helpers::bpf_csum_diff(ptr::null_mut(), 0, start, len as u32, 0)
            };
            Sum::of_doubles(sum as u32)
        };
        let mut sum = part(0, if LEN < PART { LEN } else { PART });
        if LEN > PART {
            sum = sum.plus(part(PART, if LEN < 2 * PART { LEN - PART } else { PART }));
        }
        if LEN > 2 * PART {
            sum = sum.plus(part(2 * PART, LEN - 2 * PART));
        }
        Some(sum)
    }

    #[inline(always)]
    fn move_head(&mut self, delta: i32) -> Option<()> {
        // SAFETY: the context is the kernel's. Addresses from before are not used again: `at` makes each anew.
        let error = unsafe { helpers::bpf_xdp_adjust_head(self.ctx.ctx, delta) };
        if error == 0 { Some(()) } else { None }
    }

    #[inline(always)]
    fn cut(&mut self, len: usize) -> Option<()> {
        let delta = len as i32 - self.total_len() as i32;
        // SAFETY: as in `move_head`. Cut off is only what is there: a frame is never made longer.
        let error = unsafe { if delta > 0 { -1 } else { helpers::bpf_xdp_adjust_tail(self.ctx.ctx, delta) } };
        if error == 0 { Some(()) } else { None }
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }
}
