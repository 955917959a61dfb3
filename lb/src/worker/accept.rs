//! Takes connections from one listening socket and starts a task for each.

use std::{pin::pin, rc::Rc, time::Duration};

use super::{access::Entry, api::BoundListener, connection::Accepted, drive_l7, drive_relay, local::Local};
use crate::{
    config::Protocol,
    model::{ListenerId, reason::CloseReason},
    ring::{Socket, executor, op::Accept},
};

/// Pause after the kernel had no descriptor or memory for a connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Connections taken from a backlog when a drain begins; as many may wait there.
const BACKLOG_MAX: usize = 4096;

/// Accepts until the worker drains.
pub(super) async fn drive(local: Rc<Local>, bound: BoundListener) {
    let _task = local.task();
    let socket = Socket::new(&local.ring, bound.socket);
    // Accepted sockets inherit it.
    let _ = socket2::SockRef::from(&socket).set_tcp_nodelay(true);
    let listening = socket.clone();
    let mut accept = Accept::new(&local.ring, socket);
    let deadline = local.timers.deadline();
    deadline.set_idle(true);
    loop {
        let next = deadline.guard(pin!(accept.next())).await;
        match next {
            Ok(Ok(socket)) => admit(&local, bound.listener, socket),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Ok(Err(_)) => {
                local.count(CloseReason::Resources);
                pause(&local, EXHAUSTED_PAUSE).await;
            }
            Err(_) => break,
        }
        if local.is_draining() {
            break;
        }
    }
    // Whoever has a connection already is served: what the ring has accepted, and what waits in the backlog.
    for socket in accept.finish().await {
        admit(&local, bound.listener, socket);
    }
    let _ = socket2::SockRef::from(&listening).set_nonblocking(true);
    for _ in 0..BACKLOG_MAX {
        let Ok((socket, _)) = socket2::SockRef::from(&listening).accept() else { break };
        if socket.set_nonblocking(true).is_ok() {
            admit(&local, bound.listener, Socket::new(&local.ring, socket.into()));
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
    let Some(client) = reference.peer_addr().ok().and_then(|address| address.as_socket()) else { return };
    let plan = local.plan();
    let Some(config) = plan.listener(listener) else { return };
    let permit = match local.admission.admit(client.ip(), &plan.snapshot.limits) {
        Ok(permit) => permit,
        Err(reason) => {
            local.count(reason);
            let entry = Entry::default();
            entry.begin(local.access_log.as_ref(), &plan.snapshot, listener, client);
            entry.fail(reason);
            return entry.end();
        }
    };
    if reference.cpu_affinity().is_ok_and(|core| core == local.core) {
        local.metrics.listener(listener).accepted_on_core.add(1);
    }
    let accepted = Accepted::new(local, listener, client, socket, permit);
    match config.protocol {
        Protocol::Http => executor::spawn(drive_l7::drive(local.clone(), accepted)),
        Protocol::Tcp => executor::spawn(drive_relay::drive(local.clone(), accepted)),
    }
}
