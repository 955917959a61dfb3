//! Takes connections from one listening socket and starts a task for each.

use std::{pin::pin, rc::Rc, time::Duration};

use super::{
    access::Entry, api::BoundListener, compiled::Expects, connection::Accepted, dispatch, local::Local,
    proxied, timer::Idle,
};
use crate::{
    limits::Pressure,
    model::{ListenerId, reason::CloseReason},
    ring::{Socket, executor, op::Accept},
};

/// Pause after the kernel had no descriptor or memory for a connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Connections taken from a backlog when a drain begins; as many may wait there.
const BACKLOG_MAX: usize = 4096;

/// Accepts until the worker drains or the address is closed.
pub(super) async fn drive(local: Rc<Local>, bound: BoundListener) {
    let _task = local.task();
    let socket = Socket::new(&local.ring, bound.socket);
    let door = local.doors.open((bound.group, bound.place), bound.listener, &socket);
    // Accepted sockets inherit it.
    let _ = socket2::SockRef::from(&socket).set_tcp_nodelay(true);
    let listening = socket.clone();
    let mut accept = Accept::new(&local.ring, socket);
    let deadline = local.timers.deadline();
    deadline.set_idle(Idle::UntilDrain);
    loop {
        let next = deadline.guard(pin!(accept.next())).await;
        match next {
            Ok(Ok(socket)) => admit(&local, door.listener(), socket),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Ok(Err(_)) => {
                local.count(CloseReason::Resources);
                // Kept connections are the first to go.
                local.drop_keepalive();
                pause(&local, EXHAUSTED_PAUSE).await;
            }
            // Looked at below; another one's end may have woken it.
            Err(_) => deadline.forget(),
        }
        if local.is_draining() || door.is_closed() {
            break;
        }
    }
    // Whoever has a connection already is served: what the ring has accepted, and what waits in the backlog.
    for socket in accept.finish().await {
        admit(&local, door.listener(), socket);
    }
    let _ = socket2::SockRef::from(&listening).set_nonblocking(true);
    for _ in 0..BACKLOG_MAX {
        let Ok((socket, _)) = socket2::SockRef::from(&listening).accept() else { break };
        if socket.set_nonblocking(true).is_ok() {
            admit(&local, door.listener(), Socket::new(&local.ring, socket.into()));
        }
    }
}

async fn pause(local: &Local, wait: Duration) {
    let deadline = local.timers.deadline();
    deadline.set(local.after(wait));
    let _ = deadline.guard(std::future::pending::<()>()).await;
}

fn admit(local: &Rc<Local>, listener: ListenerId, socket: Socket) {
    let reference = socket2::SockRef::from(&socket);
    // A connection that was reset while it queued has no peer any more.
    let Some(client) = socket.peer() else { return };
    let plan = local.plan();
    let Some(config) = plan.listener(listener) else { return };
    let (limits, admission) = (&plan.snapshot.limits, &local.admission);
    let expects = plan.proxied(listener).map_or(Expects::Nothing, |proxied| proxied.expects(client.ip()));
    let admitted = match (local.pressure.now(), expects) {
        (Pressure::Connections, _) => Err(CloseReason::Memory),
        (_, Expects::Nothing) => admission.admit(client.ip(), listener, config.connections, limits),
        (_, Expects::Header { .. }) => {
            admission.admit_unnamed(client.ip(), listener, config.connections, limits)
        }
        (_, Expects::Nobody) => Err(CloseReason::ProxyUntrusted),
    };
    let permit = match admitted {
        Ok(permit) => permit,
        Err(reason) => {
            local.count(reason);
            local.metrics.listener(listener).reasons.of(reason).add(1);
            let entry = Entry::default();
            entry.begin(local.access_log(), &plan.snapshot, listener, client);
            entry.fail(reason);
            return entry.end();
        }
    };
    if reference.cpu_affinity().is_ok_and(|core| core == local.core()) {
        local.metrics.listener(listener).accepted_on_core.add(1);
    }
    let accepted = Accepted::new(local, client, socket, permit);
    match expects {
        Expects::Header { is_required } => {
            executor::spawn(proxied::drive(accepted, is_required));
        }
        Expects::Nothing | Expects::Nobody => {
            dispatch::start(accepted, None, config.protocol);
        }
    }
}
