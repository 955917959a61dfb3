//! What checks and exchanges found of backends, as metrics.

use std::fmt::Display;

use super::view::View;
use crate::{
    config::PoolSnapshot,
    health::Cause,
    metrics::{
        ProbeEnd,
        encode::{Encoder, Kind},
    },
};

/// Families `lb_health_*`.
pub(super) fn health(encoder: &mut Encoder, view: &View) {
    let mut family = encoder.family("lb_health_backend_up", Kind::Gauge, "1 while new work may go there.");
    for (pool, backend) in view.backends() {
        let labels: [(&str, &dyn Display); 2] = [("pool", &pool), ("backend", &backend.name)];
        family.sample(&labels, u8::from(view.health.is_up(backend.id)));
    }
    let mut family =
        encoder.family("lb_health_checks_total", Kind::Counter, "Active checks by how they ended.");
    for (pool, backend) in view.backends() {
        let Some(check) = view.checks.get(&backend.id) else { continue };
        let Some(kind) = check.kind else { continue };
        for end in ProbeEnd::ALL {
            let labels: [(&str, &dyn Display); 4] =
                [("pool", &pool), ("backend", &backend.name), ("kind", &kind), ("code", &end.name())];
            family.sample(&labels, check.metrics.of(end).value());
        }
    }
    let mut family = encoder.family(
        "lb_health_changes_total",
        Kind::Counter,
        "Verdicts of active checks that changed, up or down.",
    );
    for (pool, backend) in view.backends() {
        let Some(check) = view.checks.get(&backend.id) else { continue };
        let labels: [(&str, &dyn Display); 2] = [("pool", &pool), ("backend", &backend.name)];
        family.sample(&labels, check.metrics.changes.value());
    }
    ejections(encoder, view);
}

fn ejections(encoder: &mut Encoder, view: &View) {
    let watched = || {
        let is_watched = |pool: &&PoolSnapshot| pool.choosing.outlier.is_some();
        let pools = view.snapshot.pools.iter().filter(is_watched);
        pools.flat_map(|pool| pool.backends.iter().map(move |backend| (&pool.name, backend)))
    };
    let mut family =
        encoder.family("lb_health_ejected", Kind::Gauge, "1 while exchanges speak against a backend.");
    for (pool, backend) in watched() {
        let Some(check) = view.checks.get(&backend.id) else { continue };
        let labels: [(&str, &dyn Display); 2] = [("pool", pool), ("backend", &backend.name)];
        family.sample(&labels, u8::from(check.report.findings().ejected.is_some()));
    }
    let mut family = encoder.family(
        "lb_health_ejections_total",
        Kind::Counter,
        "Ejections by what exchanges met, and those that were spared as one too many or the last.",
    );
    for (pool, backend) in watched() {
        let Some(check) = view.checks.get(&backend.id) else { continue };
        let counted = &check.ejections;
        for (reason, counter) in [
            (Cause::Run.name(), &counted.consecutive_errors),
            (Cause::Ratio.name(), &counted.error_ratio),
            (Cause::Latency.name(), &counted.latency),
            ("spared", &counted.spared),
        ] {
            let labels: [(&str, &dyn Display); 3] =
                [("pool", pool), ("backend", &backend.name), ("reason", &reason)];
            family.sample(&labels, counter.value());
        }
    }
    let mut family =
        encoder.family("lb_health_in_panic", Kind::Gauge, "1 while all backends of a pool are used.");
    for (pool, report) in view.pools.iter() {
        family.sample(&[("pool", pool)], u8::from(report.is_panic()));
    }
    let mut family = encoder.family("lb_health_panics_total", Kind::Counter, "Times that began to be so.");
    for (pool, report) in view.pools.iter() {
        family.sample(&[("pool", pool)], report.panics.value());
    }
}
