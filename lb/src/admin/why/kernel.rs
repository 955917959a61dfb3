//! What the kernel does with a packet that XDP lets pass, as far as it is our business: which listener takes it.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Asked, step};
use crate::{
    admin::view::View,
    config::{ListenerSnapshot, Protocol, Steer},
    model::QuestionProtocol,
};

/// One step: who takes the packet.
pub(super) fn steps(view: &View, asked: &Asked<'_>) -> Vec<Value> {
    let destination = asked.question.destination;
    let ip = destination.ip();
    if !ip.is_loopback() && !asked.local.contains(&ip) {
        let text = format!("{ip} is no address of this host: the kernel forwards or drops it");
        return vec![step("kernel", text, json!({ "local": false }))];
    }
    let protocol = match asked.question.protocol {
        QuestionProtocol::Tcp(_) => "tcp",
        QuestionProtocol::Udp => "udp",
        QuestionProtocol::Echo => {
            let text = format!("{ip} is an address of this host: the kernel answers echo requests to it");
            return vec![step("kernel", text, json!({ "local": true }))];
        }
    };
    let listener = (protocol == "tcp").then(|| listener(view, destination)).flatten();
    let Some(listener) = listener else {
        let port = destination.port();
        let text = format!(
            "no listener of ours takes {ip} port {port}/{protocol}: another program's socket, or the kernel's refusal, \
             answers"
        );
        return vec![step("kernel", text, json!({ "local": true, "listener": null }))];
    };
    vec![step("listener", text_of(view, asked, listener), json!({ "listener": listener.name }))]
}

/// The listener whose socket gets a connection: one bound to the address goes before one bound to all.
fn listener(view: &View, destination: SocketAddr) -> Option<&ListenerSnapshot> {
    let any = match destination {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], destination.port())),
        SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], destination.port())),
    };
    let bound = |to: SocketAddr| view.snapshot.listeners.iter().find(|listener| listener.bind.contains(&to));
    bound(destination).or_else(|| bound(any))
}

fn text_of(view: &View, asked: &Asked<'_>, listener: &ListenerSnapshot) -> String {
    let protocol = match listener.protocol {
        Protocol::Http => "http",
        Protocol::Tcp => "tcp",
    };
    let report = asked
        .packets
        .and_then(|packets| packets.steer.iter().find(|report| *report.listener == *listener.name));
    let worker = match report {
        None => "worker by the kernel's own hash".to_owned(),
        Some(report) => {
            let by = match report.mode {
                Steer::Core => "the core that takes the packet",
                Steer::Hash | Steer::Auto => "flow hash",
            };
            format!("lb_steer chooses the worker by {by} ({})", report.why)
        }
    };
    let pool = listener.pool.and_then(|id| view.snapshot.pools.get(id.index())).map(|pool| {
        let up = pool.backends.iter().filter(|backend| view.health.is_up(backend.id)).count();
        format!("pool {}, {up} of {} backends up", pool.name, pool.backends.len())
    });
    let target = match (listener.routes.len(), pool) {
        (0, Some(pool)) => pool,
        (0, None) => "no pool".to_owned(),
        (routes, Some(pool)) => format!("{routes} routes, else {pool}"),
        (routes, None) => format!("{routes} routes, else nobody"),
    };
    format!("listener {} ({protocol}) takes it: {worker}; then {target}", listener.name)
}
