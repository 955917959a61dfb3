//! What a backend is told of its client before the first byte.

use super::{connection::Accepted, local::Local, plan::Plan};
use crate::{
    config::ProxyVersion,
    model::PoolId,
    relay::proxy::{Ends, Extras, write_v1, write_v2},
};

/// How a pool is told within what it is sent; `None`: it is not, or was before TLS.
pub(super) fn within(plan: &Plan, pool: PoolId) -> Option<ProxyVersion> {
    plan.pool(pool).proxy_protocol.filter(|_| plan.pool_tls(pool).is_none())
}

/// The header for a pool that speaks TLS behind it. One for all attempts: they are for the same client.
pub(super) fn before_tls(plan: &Plan, pool: PoolId, accepted: &Accepted) -> Option<Box<[u8]>> {
    let version = plan.pool(pool).proxy_protocol?;
    plan.pool_tls(pool)?;
    let mut out = Vec::new();
    write(&mut out, accepted.local(), accepted, version, None);
    Some(out.into())
}

/// Appends the PROXY header for a connection to a backend. `authority`: the host that the client asked for by TLS.
pub(super) fn write(
    out: &mut Vec<u8>,
    local: &Local,
    accepted: &Accepted,
    version: ProxyVersion,
    authority: Option<&[u8]>,
) {
    let ends = accepted.destination().map(|destination| Ends::new(accepted.client(), destination));
    match version {
        ProxyVersion::V1 => write_v1(out, ends),
        ProxyVersion::V2 => {
            let [high, low] = local.request_ids.next();
            let id = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
            write_v2(out, ends, &Extras { authority, unique_id: Some(&id) });
        }
    }
}
