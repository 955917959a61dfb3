//! Where a relay goes whose client speaks TLS, by the name it asks for. Nothing of what it says is kept back or changed.

use super::{
    connection::Accepted, local::Local, plan::Plan, stream::Stream, stream_error::StreamError,
    timer::Deadline,
};
use crate::{
    model::{PoolId, RouteId, reason::CloseReason},
    relay::{
        Names,
        client_hello::{self, Hello, ServerName},
    },
};

/// Where a relay goes.
#[derive(Debug)]
pub(super) struct Goal {
    pub(super) pool: PoolId,
    /// What the client asked for.
    pub(super) name: Option<ServerName>,
}

/// Waits for the ClientHello, which stays in `stream`, and picks the route for the name in it; the listener's pool has
/// whatever no route has.
pub(super) async fn find(
    local: &Local,
    plan: &Plan,
    names: &Names<RouteId>,
    accepted: &Accepted,
    stream: &mut Stream,
    deadline: &Deadline,
) -> Result<Goal, CloseReason> {
    deadline.set(local.after(plan.snapshot.limits.head_timeout));
    let otherwise = plan.listener(accepted.listener()).and_then(|listener| listener.pool);
    let name = match read(local, stream, deadline).await? {
        Hello::Complete(Some(name)) => name,
        hello => {
            let none = if hello == Hello::NotTls { CloseReason::NotTls } else { CloseReason::NoServerName };
            let pool = otherwise.ok_or(none)?;
            accepted.entry.way(None, Some(&plan.pool(pool).name));
            return Ok(Goal { pool, name: None });
        }
    };
    accepted.entry.server_name(name.as_bytes());
    let route = names.find(name.as_bytes()).and_then(|id| Some(plan.route(id)?.0));
    let pool = match route {
        Some(route) => route.action.pool().copied(),
        None => otherwise,
    };
    let pool = pool.ok_or(CloseReason::NoRoute)?;
    accepted.entry.way(route.map(|route| &*route.name), Some(&plan.pool(pool).name));
    Ok(Goal { pool, name: Some(name) })
}

async fn read(local: &Local, stream: &mut Stream, deadline: &Deadline) -> Result<Hello, CloseReason> {
    let mut worth_a_look = 0;
    loop {
        if stream.data().len() >= worth_a_look {
            match client_hello::parse(stream.data()).map_err(|_| CloseReason::ClientHello)? {
                Hello::Partial(at_least) => worth_a_look = at_least,
                known => return Ok(known),
            }
        }
        match stream.fill(deadline).await {
            Ok(0) | Err(StreamError::Broken) => return Err(CloseReason::ClientGone),
            Ok(_) => stream.yield_buffer(),
            Err(StreamError::Expired) if local.is_overdue() => return Err(CloseReason::Draining),
            Err(StreamError::Expired) => return Err(CloseReason::HeadTimeout),
        }
    }
}
