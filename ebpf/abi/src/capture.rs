//! Packets on their way to `lb capture`.
//!
//! While a capture runs, `lb_ingress` hands every packet on to `lb_capture` (a tail call through `CAPTURE_PROGRAM`,
//! which is empty otherwise). That does the same work before a witness, and puts what the filter wants into a ring.
//! The map is not pinned: with the daemon gone the kernel empties it, and the capture is over.

use crate::trace::Trace;

/// Most bytes of a frame that are captured.
pub const SNAP_MAX: usize = 2048;
/// Bytes of the ring; a power of two.
pub const RING_BYTES: u32 = 1 << 20;
/// Any VIP, any protocol.
pub const ANY: u32 = u32::MAX;
/// Not only headers.
pub const FLAG_PAYLOAD: u32 = 1 << 0;

/// The one entry of map `CAPTURE_FILTER`; written before a capture begins. A packet has to meet all of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureFilter {
    /// Prefix of the source address, in the contract's form, zero beyond its mask.
    pub source: [u8; 16],
    /// Mask of that; zero: any, also of what has no address.
    pub source_mask: [u8; 16],
    /// Prefix of the destination address.
    pub destination: [u8; 16],
    /// Mask of that.
    pub destination_mask: [u8; 16],
    /// [`crate::reason::Reason`]s: bit n for number n.
    pub reasons: u64,
    /// Counter index of the VIP; [`ANY`].
    pub vip: u32,
    /// Backend id; 0: any.
    pub backend: u32,
    /// IP protocol number; [`ANY`].
    pub protocol: u32,
    /// A packet is looked at if a random number is not above this: `u32::MAX` for all of them.
    pub sample: u32,
    /// Bytes of a frame that are taken; at least 14, at most [`SNAP_MAX`].
    pub snap: u32,
    /// `FLAG_*` above.
    pub flags: u32,
    /// Bytes that may go into the ring in one tick of the coarse clock, over all cores, near enough.
    pub bytes_per_tick: u32,
    /// Index of the interface that the packet came in by; 0: any.
    pub ingress: u32,
}

impl CaptureFilter {
    /// Every packet, its headers only, without a bound.
    pub const ALL: Self = Self {
        source: [0; 16],
        source_mask: [0; 16],
        destination: [0; 16],
        destination_mask: [0; 16],
        reasons: u64::MAX,
        vip: ANY,
        backend: 0,
        protocol: ANY,
        sample: u32::MAX,
        snap: 128,
        flags: 0,
        bytes_per_tick: u32::MAX,
        ingress: 0,
    };
}

/// One packet in the ring; `captured` bytes of its frame follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureRecord {
    /// The monotonic clock when it came in.
    pub ktime_ns: u64,
    /// Bytes of the frame as it came in.
    pub length: u32,
    /// Bytes of it that follow, at most [`SNAP_MAX`].
    pub captured: u32,
    /// Index of the interface it came in by.
    pub ingress: u32,
    /// Zero.
    pub pad: u32,
    /// What was done with it.
    pub trace: Trace,
}

/// Where a core puts a record together; map `CAPTURE_SCRATCH`, one entry.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CaptureScratch {
    /// The head.
    pub record: CaptureRecord,
    /// The frame's first bytes.
    pub frame: [u8; SNAP_MAX],
    /// What the kernel is told in the end.
    pub action: u32,
    /// Zero.
    pub pad: u32,
}

/// Place of the program that walks, in `CAPTURE_PROGRAM`.
pub const PLACE_WALK: u32 = 1;
/// Place of the program that shows.
pub const PLACE_SHOW: u32 = 2;

/// The one entry of map `CAPTURE_COUNTERS`, per CPU; zeroed before a capture begins.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureCounters {
    /// Packets that were looked at.
    pub looked_at: u64,
    /// Those the filter wants.
    pub wanted: u64,
    /// Those of them that the ring took.
    pub written: u64,
    /// Wanted, but the ring was full.
    pub ring_full: u64,
    /// Wanted, but over the bound of bytes.
    pub over_rate: u64,
}

/// Ticks and bytes spent in it, in the one word of map `CAPTURE_BUDGET`. Cores read and write it without a lock: what
/// two of them spend at one moment may count once.
#[inline(always)]
pub const fn budget(tick: u32, spent: u32) -> u64 {
    (tick as u64) << 32 | spent as u64
}

/// The word after spending `bytes` at `tick`; none: that would be more than `max`.
#[inline(always)]
pub const fn spend(word: u64, tick: u32, bytes: u32, max: u32) -> Option<u64> {
    let spent = if (word >> 32) as u32 == tick { word as u32 } else { 0 };
    match spent.checked_add(bytes) {
        Some(sum) if sum <= max => Some(budget(tick, sum)),
        _ => None,
    }
}

const _: () = assert!(size_of::<CaptureFilter>() == 104);
const _: () = assert!(size_of::<CaptureRecord>() == 256);
const _: () = assert!(size_of::<CaptureScratch>() == 256 + SNAP_MAX + 8);
const _: () = assert!(size_of::<CaptureCounters>() == 40);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_holds_for_its_tick() {
        let word = spend(0, 7, 60, 100).unwrap();
        assert_eq!(spend(word, 7, 40, 100), Some(budget(7, 100)));
        assert_eq!(spend(word, 7, 41, 100), None);
        assert_eq!(spend(word, 8, 100, 100), Some(budget(8, 100)));
        assert_eq!(spend(word, 8, 101, 100), None, "what is larger than all of it never goes");
        assert_eq!(spend(budget(7, u32::MAX), 7, 1, u32::MAX), None);
    }
}
