//! What the kernel does with a packet that XDP lets pass, as far as it is our business: which listener takes it.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Asked, request::ups, step};
use crate::{
    admin::view::View,
    config::{ListenerSnapshot, Protocol, Steer},
    model::QuestionProtocol,
};

/// One step: who takes the packet.
pub(super) fn steps(view: &View, asked: &Asked<'_>) -> Vec<Value> {
    let destination = asked.question.destination;
    let ip = destination.ip();
    let is_tcp = matches!(asked.question.protocol, QuestionProtocol::Tcp(_));
    let ranged = if is_tcp { ranged(view, destination) } else { None };
    let is_local = ip.is_loopback() || asked.local.contains(&ip);
    if ranged.is_none() && !is_local {
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
    let listener = ranged.or_else(|| bound(view, destination, is_tcp));
    let Some(listener) = listener else {
        let port = destination.port();
        let text = format!(
            "no listener of ours takes {ip} port {port}/{protocol}: another program's socket, or the kernel's refusal, \
             answers"
        );
        return vec![step("kernel", text, json!({ "local": true, "listener": null }))];
    };
    let mut text = text_of(view, asked, listener);
    if !is_local {
        text += &format!("; if the kernel has a local route for {ip}");
    }
    vec![step("listener", text, json!({ "listener": listener.name }))]
}

/// The listener that `lb_lookup` gives a connection to, before any that is bound: of those that have address and port,
/// the one with the longest prefix.
fn ranged(view: &View, destination: SocketAddr) -> Option<&ListenerSnapshot> {
    let ranges = view.config.listeners.iter().flat_map(|(name, listener)| {
        listener.ranges.iter().filter(|range| range.contains(destination)).map(move |range| (range, name))
    });
    let (_, name) = ranges.max_by_key(|(range, _)| range.net.prefix_len())?;
    view.snapshot.listeners.iter().find(|listener| listener.name == *name)
}

/// The listener whose socket gets a connection or a datagram: one bound to the address goes before one bound to all.
fn bound(view: &View, destination: SocketAddr, is_tcp: bool) -> Option<&ListenerSnapshot> {
    let any = match destination {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], destination.port())),
        SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], destination.port())),
    };
    let of_transport = |listener: &&ListenerSnapshot| (listener.protocol != Protocol::Udp) == is_tcp;
    let listeners = || view.snapshot.listeners.iter().filter(of_transport);
    let bound = |to: SocketAddr| listeners().find(|listener| listener.bind.contains(&to));
    bound(destination).or_else(|| bound(any))
}

fn text_of(view: &View, asked: &Asked<'_>, listener: &ListenerSnapshot) -> String {
    let protocol = match listener.protocol {
        Protocol::Http => "http",
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
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
    let pool = listener.pool.and_then(|id| view.snapshot.pool(id));
    let pool = pool.map(|pool| ups(view, pool));
    let target = match (listener.routes.len(), pool) {
        (0, Some(pool)) => pool,
        (0, None) => "no pool".to_owned(),
        (routes, Some(pool)) => format!("{routes} routes, else {pool}"),
        (routes, None) => format!("{routes} routes, else nobody"),
    };
    format!("listener {} ({protocol}) takes it: {worker}; then {target}", listener.name)
}
