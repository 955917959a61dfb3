//! The second part of `l4-forward`: what a packet costs that a proxy relays instead.
//!
//! HAProxy, nginx and lb's own TCP listener relay connections, not packets, so a packet is what carries a message
//! here: 64 bytes on one of 64 connections, answered with the same 64 bytes before that connection sends again. A
//! message thus is one packet to the proxy and one on from it, and its echo is another: two packets relayed, and
//! the kernel puts none of them together. Acknowledgements that travel alone are not counted, though the proxy's
//! kernel takes and sends them: XDP forwards them as packets like any other, a proxy never sees them.
//!
//! A run is void unless every message that was sent came back and the backend echoed exactly as many.

use anyhow::Result;

use crate::{
    context::Context,
    load,
    measure::CORE_BUSY,
    peers::{Peer, Subject},
    sample::{Metric, Sample},
    stage::{Stage, TCP},
};

const CPU: Metric = Metric::cost("relay_cpu", "ns/packet");
const MACHINE: Metric = Metric::cost("relay_machine_cpu", "ns/packet");
const RATE: Metric = Metric::gain("relay_rate", "packets/s");

/// Client threads, and connections of each.
const CLIENTS: usize = 4;
const CONNECTIONS: usize = 16;
/// A message and its echo.
const PACKETS: u64 = 2;

/// Who relays, with its experts' settings.
pub(super) fn subjects() -> Vec<Subject> {
    [Peer::Lb, Peer::Nginx, Peer::Haproxy].map(Subject::tuned).to_vec()
}

/// Measures the context's subjects on the usual set of client, subject and backend.
pub(super) fn measure(context: &mut Context<'_>) -> Result<()> {
    context.samples.note(format!(
        "relay_*: lb's TCP listener and TCP proxies, which end connections instead of forwarding packets: {} \
         connections that each send 64 B and wait for the echo, a packet being one message or one echo relayed, \
         acknowledgements not counted; the subject's CPU time alone, on a core of its own, where `cpu` is \
         generator, subject and sink",
        CLIENTS * CONNECTIONS
    ));
    let length = context.pace.sample;
    let stage = Stage::set(context, TCP)?;
    context.rounds(&stage.subjects(), |&subject| {
        let (client, address) = (stage.client(), stage.running(subject)?.address);
        let before = stage.reading(subject)?;
        let echoed = load::echo(
            (client.namespace, client.cores),
            stage.tcp_backend()?,
            address,
            (CLIENTS, CONNECTIONS),
            length,
        )?;
        let cost = stage.reading(subject)?.since(&before);
        let packets = (echoed.messages * PACKETS) as f64;
        Ok(Sample::new()
            .with(CPU, cost.subject_ns() as f64 / packets)
            .with(MACHINE, cost.machine_ns as f64 / packets)
            .with(RATE, packets / echoed.seconds)
            .with(CORE_BUSY, cost.core_busy_percent()))
    })
}
