//! Tells aya that the contract's types are plain data.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe marker; the layouts are asserted where they stand")]

use crate::{
    backend::BackendEntry,
    bench::Plan,
    counter::{Budget, Traffic},
    directory::{PortRanges, VipSlot},
    flow::{FlowKey, FlowRecord, Inserts},
    hop::HopEntry,
    lengths::Lengths,
    limit::{Limits, Meter},
    link::LinkEntry,
    lookup::LookupEntry,
    meta::Meta,
    probe::ProbeEntry,
    quic::QuicEntry,
    source::{SourceKey, SourceTree},
    steer::{SteerCounters, SteerEntry, SteerKey},
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
    Budget,
    FlowKey,
    FlowRecord,
    HopEntry,
    Limits,
    Inserts,
    Lengths,
    LinkEntry,
    LookupEntry,
    Meta,
    Meter,
    Plan,
    PortRanges,
    QuicEntry,
    SourceKey,
    SourceTree,
    ProbeEntry,
    SteerCounters,
    SteerEntry,
    SteerKey,
    Traffic,
    VipEntry,
    VipKey,
    VipSlot
);
