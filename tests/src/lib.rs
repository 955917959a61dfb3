//! Test harness.

pub mod packet;
pub mod xdp;
