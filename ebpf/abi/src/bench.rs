//! What `lb-bench` tells the program that it repeats (`ebpf/src/bench.rs`). No part of the packet path.

/// Bytes from the frame's first that are written anew before each run: Ethernet, IP and transport header.
/// A power of two; frames are at least this long.
pub const HEAD_LEN: usize = 64;

/// The one entry of `BENCH_PLAN`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The first bytes of the frame.
    pub head: [u8; HEAD_LEN],
    /// Bytes of the frame.
    pub frame_len: u32,
    /// Offset of the source address's last four bytes in `head`.
    pub source_at: u32,
    /// Those four bytes of the first flow, as a number.
    pub source: u32,
    /// Flows less one; flows are a power of two.
    pub flows_mask: u32,
    /// Runs so far.
    pub turn: u32,
    /// Zero.
    pub pad: u32,
}

/// Program that restores the packet and calls the measured one.
pub const PROGRAM_WRAP: &str = "bench_wrap";
/// Program that does nothing.
pub const PROGRAM_EMPTY: &str = "bench_empty";
/// Program that swaps the Ethernet addresses and answers `XDP_TX`.
pub const PROGRAM_SWAP: &str = "bench_swap";
/// Program that counts IPv4 packets and drops them.
pub const PROGRAM_SINK: &str = "bench_sink";
/// `PerCpuArray<u64>`, one entry: packets that [`PROGRAM_SINK`] took.
pub const MAP_SUNK: &str = "BENCH_SUNK";
/// `Array<Plan>`, one entry.
pub const MAP_PLAN: &str = "BENCH_PLAN";
/// `ProgramArray`, one entry: the measured program.
pub const MAP_PROGRAM: &str = "BENCH_PROGRAM";

const _: () = assert!(size_of::<Plan>() == HEAD_LEN + 24);
