//! What is counted of connections to backends.

use std::fmt::Display;

use super::view::View;
use crate::metrics::{
    BackendMetrics,
    encode::{Encoder, Kind},
};

/// Name, help, and where to read it.
pub(super) type Column<T> = (&'static str, Kind, &'static str, fn(&T) -> u64);

const UPSTREAM: [Column<BackendMetrics>; 8] = [
    ("lb_upstream_connects_total", Kind::Counter, "Connections dialled with success.", |m| {
        m.connects.value()
    }),
    (
        "lb_upstream_connect_failures_total",
        Kind::Counter,
        "Connections refused, unanswered or unreachable.",
        |m| m.connect_failures.value(),
    ),
    ("lb_upstream_reuses_total", Kind::Counter, "Exchanges that took a kept connection.", |m| {
        m.reuses.value()
    }),
    (
        "lb_upstream_shelf_reuses_total",
        Kind::Counter,
        "Of those, how many took one that some worker had to spare.",
        |m| m.shelf_reuses.value(),
    ),
    (
        "lb_upstream_retries_refused_total",
        Kind::Counter,
        "Requests that were not sent here a second time: as many as breaker.retries allows were under way.",
        |m| m.retries_refused.value(),
    ),
    ("lb_upstream_exchanges_total", Kind::Counter, "Exchanges or relays begun.", |m| m.exchanges.value()),
    ("lb_upstream_in_flight_exchanges", Kind::Gauge, "Exchanges or relays going on.", |m| {
        m.in_flight.value()
    }),
    ("lb_upstream_idle_connections", Kind::Gauge, "Idle connections that a worker keeps.", |m| {
        m.idle.value()
    }),
];

pub(super) fn upstream(encoder: &mut Encoder, view: &View) {
    for (name, kind, help, value) in UPSTREAM {
        let mut family = encoder.family(name, kind, help);
        for (pool, backend) in view.backends() {
            for worker in &view.workers {
                let labels: [(&str, &dyn Display); 3] =
                    [("pool", &pool), ("backend", &backend.name), ("worker", &worker.id)];
                family.sample(&labels, value(worker.metrics.backend(backend.id)));
            }
        }
    }
    shelved(encoder, view);
}

/// Those of no worker.
fn shelved(encoder: &mut Encoder, view: &View) {
    let mut family = encoder.family(
        "lb_upstream_shelved_connections",
        Kind::Gauge,
        "Idle connections that workers had to spare, and that any of them may take.",
    );
    for (pool, backend) in view.backends() {
        let labels: [(&str, &dyn Display); 2] = [("pool", &pool), ("backend", &backend.name)];
        family.sample(&labels, view.shelf.count(backend.id));
    }
}
