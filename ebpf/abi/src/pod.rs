//! Tells aya that the contract's types are plain data, and reads them from bytes.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe marker; the layouts are asserted where they stand")]

use core::mem::size_of;

use crate::{
    backend::BackendEntry,
    bench::Plan,
    capture::{CaptureCounters, CaptureFilter, CaptureRecord},
    counter::{Budget, Traffic},
    directory::{PortRanges, VipSlot},
    flow::{FlowKey, FlowRecord, Inserts},
    hop::HopEntry,
    interface::InterfaceEntry,
    lengths::Lengths,
    limit::{Limits, Meter},
    link::LinkEntry,
    lookup::LookupEntry,
    meta::Meta,
    nat::{NatEntry, NatPool},
    probe::ProbeEntry,
    quic::QuicEntry,
    source::{SourceKey, SourceTree},
    spread::Spread,
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
    Budget,
    CaptureCounters,
    CaptureFilter,
    CaptureRecord,
    FlowKey,
    FlowRecord,
    HopEntry,
    Limits,
    Inserts,
    InterfaceEntry,
    Lengths,
    LinkEntry,
    LookupEntry,
    Meta,
    Meter,
    NatEntry,
    NatPool,
    Plan,
    PortRanges,
    QuicEntry,
    SourceKey,
    SourceTree,
    ProbeEntry,
    Spread,
    SteerCounters,
    SteerEntry,
    SteerKey,
    Traffic,
    VipEntry,
    VipKey,
    VipSlot,
    Why
);

/// The value that `bytes` begin with, and the rest, as a program wrote it into a ring. None: they are too few.
pub fn read<T: aya::Pod>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let (head, rest) = bytes.split_at_checked(size_of::<T>())?;
    // SAFETY: as many bytes as the type has, and any are valid ones, as it is plain data. Alignment is not relied upon.
    Some((unsafe { head.as_ptr().cast::<T>().read_unaligned() }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_short_is_no_value() {
        let mut bytes = [0; size_of::<CaptureRecord>() + 3];
        bytes[8..12].copy_from_slice(&7u32.to_ne_bytes());
        let (record, rest) = read::<CaptureRecord>(&bytes).unwrap();
        assert_eq!((record.length, rest.len()), (7, 3));
        assert!(read::<CaptureRecord>(&bytes[..size_of::<CaptureRecord>() - 1]).is_none());
    }
}
