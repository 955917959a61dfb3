//! Tells aya that the contract's types are plain data.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe marker; the layouts are asserted where they stand")]

use crate::{
    backend::BackendEntry,
    bench::Plan,
    counter::Traffic,
    flow::{FlowKey, FlowRecord},
    hop::HopEntry,
    interface::InterfaceEntry,
    meta::Meta,
    steer::{SteerCounters, SteerEntry, SteerKey},
    trace::Why,
    vip::{VipEntry, VipKey},
};

macro_rules! pod {
    ($($kind:ty),+ $(,)?) => {
        $(
            // SAFETY: repr(C), integers and byte arrays only, padding written as fields, size asserted.
            unsafe impl aya::Pod for $kind {}
        )+
    };
}

pod!(
    BackendEntry,
    FlowKey,
    FlowRecord,
    HopEntry,
    InterfaceEntry,
    Meta,
    Plan,
    SteerCounters,
    SteerEntry,
    SteerKey,
    Traffic,
    VipEntry,
    VipKey,
    Why
);
