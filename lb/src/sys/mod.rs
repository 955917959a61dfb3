//! The syscalls that a ring does not do, or does badly.

pub mod affinity;
pub mod event;
pub mod interfaces;
pub mod lock;
pub mod pipe;
pub mod rooms;
