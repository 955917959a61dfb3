//! Fuzz targets: what reads bytes that somebody else chose, each with properties that hold for all of them.
//!
//! A target is a plain function of bytes that panics where a property does not hold. [`target::ALL`] are driven by
//! libFuzzer (`main.rs`, behind feature `libfuzzer`, built by `cargo xtask fuzz`) and, so that none rots, by an ordinary
//! test: [`replay`] runs the seeds, the inputs kept under `corpus/NAME/`, and a few thousand crossings of both.
//!
//! What a fuzzer finds becomes a plain test beside the code at fault; `corpus/NAME/` is for inputs that reach what the
//! seeds do not.
#![expect(clippy::expect_used, reason = "a property that does not hold is a failed test")]

pub mod begin;
pub mod bytes;
pub mod memory;
pub mod replay;
pub mod target;
