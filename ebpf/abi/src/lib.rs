//! The contract between the kernel half (`lb-ebpf`) and the daemon (`lb`).
//!
//! Everything here is `repr(C)`, made of integers and byte arrays only, with its padding written as fields
//! and its size asserted at compile time. Names of maps and programs are constants in [`names`]; both halves
//! take them from there. A change of any layout or meaning bumps [`ABI_VERSION`], and the loader refuses an
//! object or a pin of another version.
#![no_std]

pub mod activity;
pub mod backend;
pub mod be;
pub mod bench;
pub mod bounds;
pub mod capture;
pub mod counter;
pub mod directory;
pub mod flow;
pub mod guard;
pub mod hash;
pub mod hop;
pub mod interface;
pub mod lengths;
pub mod limit;
pub mod link;
pub mod lookup;
pub mod meta;
pub mod names;
pub mod nat;
#[cfg(feature = "user")]
pub mod pod;
pub mod probe;
pub mod quic;
pub mod reason;
pub mod slot;
pub mod source;
pub mod spread;
pub mod steer;
pub mod subject;
pub mod tag;
pub mod trace;
pub mod vip;

/// Version of every layout and meaning in this crate.
pub const ABI_VERSION: u32 = 6;
