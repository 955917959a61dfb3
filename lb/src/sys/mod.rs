//! The syscalls that a ring does not do, or does badly.

pub mod interfaces;
