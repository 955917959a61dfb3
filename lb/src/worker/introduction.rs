//! What a backend is told of its client before the first byte.

use super::{connection::Accepted, local::Local};
use crate::{
    config::ProxyVersion,
    relay::proxy::{Ends, Extras, write_v1, write_v2},
};

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
