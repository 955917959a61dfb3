//! How fast one source may open flows: looked at only while this core sees a flood of SYNs.
//!
//! Only SYNs open flows that can be seen: nothing is known of UDP's, and every datagram would have to be looked at.
//! A source is an IPv4 address, or the first half of an IPv6 one, of which a host has all the rest.

use lb_abi::{
    limit::{Bucket, Limits},
    reason::Reason,
};

use crate::{
    env::{BucketCell as _, Env},
    numbers::Family,
    parse::Ip,
    select::Stage,
};

/// Refuses a SYN whose source opened more flows than it may.
#[inline(always)]
pub fn check<E: Env>(env: &E, ip: &Ip, stage: Stage) -> Result<(), Reason> {
    if !matches!(stage, Stage::Opening) {
        return Ok(());
    }
    let Some(limits) = env.limits() else { return Ok(()) };
    let now = env.now_ticks();
    let meter = env.meter().counted(now);
    env.keep_meter(meter);
    if !meter.is_armed(limits) || take(env, limits, ip, now) { Ok(()) } else { Err(Reason::RateLimited) }
}

/// Whether there was a flow left in the source's bucket.
#[inline(always)]
fn take<E: Env>(env: &E, limits: &Limits, ip: &Ip, now: u32) -> bool {
    let source = match ip.family {
        Family::V4 => ip.source.bytes(),
        Family::V6 => ip.source.network().bytes(),
    };
    match env.bucket(&source) {
        Some(cell) => {
            let (bucket, is_allowed) = cell.load().take(limits, now);
            cell.store(bucket);
            is_allowed
        }
        None => {
            let (bucket, is_allowed) = Bucket::full(limits, now).take(limits, now);
            env.keep_bucket(&source, bucket);
            is_allowed
        }
    }
}
