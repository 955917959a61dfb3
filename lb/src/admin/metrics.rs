//! `GET /metrics`: every counter by its published name.
//!
//! Names are `lb_<plane>_<what>_<unit>[_total]` and frozen once released. Labels come from {vip, listener,
//! route, pool, backend, worker, reason, code, interface, tls, file}; only the build info carries another, `version`.

use std::{fmt::Display, sync::Arc};

use lb_abi::{
    counter::{FlowEvent, Traffic},
    nat::NatEvent,
    quic::QuicEvent,
    reason::Reason,
};

use super::{
    certificates, health_metrics,
    packets::{Packets, TableDigest},
    upstream_metrics::{self, Column},
    view::View,
};
use crate::{
    metrics::{
        ListenerMetrics, WorkerMetrics,
        encode::{Encoder, Kind},
    },
    model::reason::CloseReason,
};

/// The whole exposition.
pub fn render(view: &View, packets: Option<&Packets>) -> String {
    let mut encoder = Encoder::new();
    encoder.counted(view.predecessors.counted());
    control(&mut encoder, view);
    workers(&mut encoder, view);
    access_log(&mut encoder, view);
    listeners(&mut encoder, view);
    listener_reasons(&mut encoder, view);
    upstream_metrics::upstream(&mut encoder, view);
    health_metrics::health(&mut encoder, view);
    names(&mut encoder, view);
    certificates::metrics(&mut encoder, &view.certificates);
    if let Some(packets) = packets {
        if view.config.xdp.is_some() {
            // Maps go on, and with them what is counted there.
            encoder.counted(Arc::default());
        }
        xdp(&mut encoder, packets);
        xdp_traffic(&mut encoder, view, packets);
        xdp_active(&mut encoder, view, packets);
        steer(&mut encoder, packets);
    }
    encoder.finish()
}

fn control(encoder: &mut Encoder, view: &View) {
    encoder
        .family("lb_control_build_info", Kind::Gauge, "Always 1; the label is the version.")
        .sample(&[("version", &env!("CARGO_PKG_VERSION"))], 1);
    encoder
        .family("lb_control_generation", Kind::Gauge, "Number of the config that runs.")
        .sample(&[], view.snapshot.generation);
    encoder
        .family("lb_control_uptime_seconds", Kind::Gauge, "Seconds since the daemon began to serve.")
        .sample(&[], format_args!("{:.3}", view.started.elapsed().as_secs_f64()));
    encoder
        .family("lb_control_draining", Kind::Gauge, "1 while the daemon takes nothing new.")
        .sample(&[], u8::from(view.is_draining()));
    encoder
        .family(
            "lb_control_draining_processes",
            Kind::Gauge,
            "Processes that this one took over from and that still have connections.",
        )
        .sample(&[], view.predecessors.list().len());
    encoder
        .family("lb_control_warnings", Kind::Gauge, "Things this host or config costs us; see lb status.")
        .sample(&[], view.warnings.len() + certificates::warnings(&view.certificates).len());
}

fn access_log(encoder: &mut Encoder, view: &View) {
    encoder
        .family("lb_log_lines_total", Kind::Counter, "Lines of the access log that were written.")
        .sample(&[], view.log.lines.value());
    encoder
        .family(
            "lb_log_failed_total",
            Kind::Counter,
            "Lines lost because log.file could not be written, or there was none any more.",
        )
        .sample(&[], view.log.failed.value());
}

const WORKER: [Column<WorkerMetrics>; 15] = [
    ("lb_worker_turns_total", Kind::Counter, "Loop turns.", |m| m.turns.value()),
    ("lb_worker_enters_total", Kind::Counter, "io_uring_enter calls.", |m| m.enters.value()),
    ("lb_worker_completions_total", Kind::Counter, "Completions reaped.", |m| m.completions.value()),
    (
        "lb_worker_completions_stray_total",
        Kind::Counter,
        "Completions nobody waited for; always 0 in a sound program.",
        |m| m.completions_stray.value(),
    ),
    ("lb_worker_spliced_bytes_total", Kind::Counter, "Bytes that never met user space.", |m| {
        m.spliced_bytes.value()
    }),
    ("lb_worker_splices_started_total", Kind::Counter, "Relays that left user space.", |m| {
        m.splices_started.value()
    }),
    (
        "lb_worker_kernel_tls_total",
        Kind::Counter,
        "Connections whose TLS the kernel has sealed from then on.",
        |m| m.kernel_tls.value(),
    ),
    ("lb_worker_pipes_refused_total", Kind::Counter, "Splices refused for want of a pipe.", |m| {
        m.pipes_refused.value()
    }),
    ("lb_worker_snapshots_total", Kind::Counter, "Configs taken over.", |m| m.snapshots.value()),
    (
        "lb_worker_stuck_seconds",
        Kind::Gauge,
        "Seconds since the last loop turn, once they are too many: the watchdog waits no longer.",
        |m| m.stuck_seconds.value(),
    ),
    (
        "lb_worker_memory_used_bytes",
        Kind::Gauge,
        "Memory of the whole daemon that limits.memory is about, as the worker last saw it.",
        |m| m.memory_used.value(),
    ),
    (
        "lb_worker_memory_pressure",
        Kind::Gauge,
        "What memory is short for: 0 nothing, 1 idle connections, 2 new requests, 3 new connections.",
        |m| m.memory_pressure.value(),
    ),
    ("lb_log_dropped_total", Kind::Counter, "Lines of the access log lost because a queue was full.", |m| {
        m.log_dropped.value()
    }),
    ("lb_log_skipped_total", Kind::Counter, "Lines of the access log left out by log.sample.", |m| {
        m.log_skipped.value()
    }),
    (
        "lb_worker_refused_cookies_total",
        Kind::Counter,
        "Sticky cookies that were not made with their pool's secret.",
        |m| m.cookies_refused.value(),
    ),
];

fn workers(encoder: &mut Encoder, view: &View) {
    for (name, kind, help, value) in WORKER {
        let mut family = encoder.family(name, kind, help);
        for worker in &view.workers {
            family.sample(&[("worker", &worker.id)], value(&worker.metrics));
        }
    }
    let mut family = encoder.family(
        "lb_worker_closes_total",
        Kind::Counter,
        "Connections and exchanges that ended otherwise than well, by reason.",
    );
    for worker in &view.workers {
        for &reason in CloseReason::ALL {
            let labels: [(&str, &dyn Display); 2] = [("worker", &worker.id), ("reason", &reason.name())];
            family.sample(&labels, worker.metrics.reason(reason).value());
        }
    }
    let mut family = encoder.family(
        "lb_worker_dropped_datagrams_total",
        Kind::Counter,
        "Datagrams that went nowhere, by reason.",
    );
    for worker in &view.workers {
        for &reason in CloseReason::OF_DATAGRAMS {
            let labels: [(&str, &dyn Display); 2] = [("worker", &worker.id), ("reason", &reason.name())];
            family.sample(&labels, worker.metrics.datagrams_dropped.of(reason).value());
        }
    }
}

const LISTENER: [Column<ListenerMetrics>; 18] = [
    ("lb_listener_accepted_connections_total", Kind::Counter, "Connections accepted.", |m| {
        m.accepted.value()
    }),
    (
        "lb_listener_accepted_on_core_connections_total",
        Kind::Counter,
        "Connections accepted whose packets came in on the worker's own core.",
        |m| m.accepted_on_core.value(),
    ),
    ("lb_listener_open_connections", Kind::Gauge, "Connections open.", |m| m.open.value()),
    ("lb_listener_requests_total", Kind::Counter, "Requests with a complete head.", |m| m.requests.value()),
    (
        "lb_listener_retries_total",
        Kind::Counter,
        "Requests sent to another backend after one had them.",
        |m| m.retries.value(),
    ),
    (
        "lb_listener_retries_refused_total",
        Kind::Counter,
        "Requests that were not, as the budget of their route was spent.",
        |m| m.retries_refused.value(),
    ),
    ("lb_listener_tls_handshakes_total", Kind::Counter, "Handshakes of TLS that were done.", |m| {
        m.handshakes.value()
    }),
    (
        "lb_listener_tls_resumptions_total",
        Kind::Counter,
        "Of those, how many went on with a former session.",
        |m| m.resumptions.value(),
    ),
    (
        "lb_listener_tls_early_data_accepted_total",
        Kind::Counter,
        "Connections whose early data (0-RTT) were taken.",
        |m| m.early_accepted.value(),
    ),
    (
        "lb_listener_tls_early_data_rejected_total",
        Kind::Counter,
        "Connections whose early data were not, and had to come again.",
        |m| m.early_rejected.value(),
    ),
    (
        "lb_listener_early_requests_passed_total",
        Kind::Counter,
        "Requests that came early and went at once, with `Early-Data: 1`.",
        |m| m.early_passed.value(),
    ),
    (
        "lb_listener_early_requests_waited_total",
        Kind::Counter,
        "Requests that came early and waited until hands were shaken.",
        |m| m.early_held.value(),
    ),
    ("lb_listener_upgrades_total", Kind::Counter, "Connections that changed to another protocol.", |m| {
        m.upgrades.value()
    }),
    ("lb_listener_open_tunnels", Kind::Gauge, "Of those, how many are open.", |m| m.tunnels.value()),
    ("lb_listener_received_bytes_total", Kind::Counter, "Bytes from clients.", |m| m.received_bytes.value()),
    ("lb_listener_sent_bytes_total", Kind::Counter, "Bytes to clients.", |m| m.sent_bytes.value()),
    ("lb_listener_received_datagrams_total", Kind::Counter, "Datagrams from clients.", |m| {
        m.received_datagrams.value()
    }),
    ("lb_listener_sent_datagrams_total", Kind::Counter, "Datagrams to clients.", |m| {
        m.sent_datagrams.value()
    }),
];

fn listeners(encoder: &mut Encoder, view: &View) {
    for (name, kind, help, value) in LISTENER {
        let mut family = encoder.family(name, kind, help);
        for listener in &view.snapshot.listeners {
            for worker in &view.workers {
                let labels: [(&str, &dyn Display); 2] =
                    [("listener", &listener.name), ("worker", &worker.id)];
                family.sample(&labels, value(worker.metrics.listener(listener.id)));
            }
        }
    }
    let mut family = encoder.family(
        "lb_listener_responses_total",
        Kind::Counter,
        "Responses by status class; those we made ourselves included.",
    );
    for listener in &view.snapshot.listeners {
        for worker in &view.workers {
            let responses = &worker.metrics.listener(listener.id).responses;
            for (counter, code) in responses.iter().zip(["1xx", "2xx", "3xx", "4xx", "5xx"]) {
                let labels: [(&str, &dyn Display); 3] =
                    [("listener", &listener.name), ("worker", &worker.id), ("code", &code)];
                family.sample(&labels, counter.value());
            }
        }
    }
}

/// Only reasons that came to pass: a listener for each reason would be most of the exposition.
fn listener_reasons(encoder: &mut Encoder, view: &View) {
    let mut family = encoder.family(
        "lb_listener_closes_total",
        Kind::Counter,
        "Connections and requests of a listener that ended otherwise than well, by reason, where there were any.",
    );
    for listener in &view.snapshot.listeners {
        for &reason in CloseReason::ALL {
            let of = |metrics: &WorkerMetrics| metrics.listener(listener.id).reasons.of(reason).value();
            let count: u64 = view.workers.iter().map(|worker| of(&worker.metrics)).sum();
            if count > 0 {
                let labels: [(&str, &dyn Display); 2] =
                    [("listener", &listener.name), ("reason", &reason.name())];
                family.sample(&labels, count);
            }
        }
    }
}

/// Absent where no backend is a name.
fn names(encoder: &mut Encoder, view: &View) {
    if view.names.is_empty() {
        return;
    }
    let mut family = encoder.family(
        "lb_names_lookups_total",
        Kind::Counter,
        "Lookups of names of backends by how they ended.",
    );
    for name in view.names.iter() {
        for (end, count) in &name.lookups {
            let labels: [(&str, &dyn Display); 2] = [("name", &name.name), ("reason", end)];
            family.sample(&labels, count);
        }
    }
    let mut family = encoder.family(
        "lb_names_backends",
        Kind::Gauge,
        "Backends that a name stands for by its last good answer.",
    );
    view.names.iter().for_each(|name| family.sample(&[("name", &name.name)], name.backends.len()));
    let mut family = encoder.family(
        "lb_names_answer_age_seconds",
        Kind::Gauge,
        "Seconds since a name's last whole answer.",
    );
    for name in view.names.iter() {
        let Some(answered) = name.answered else { continue };
        family.sample(&[("name", &name.name)], format_args!("{:.3}", answered.elapsed().as_secs_f64()));
    }
}

fn xdp(encoder: &mut Encoder, packets: &Packets) {
    let mut family =
        encoder.family("lb_xdp_packets_total", Kind::Counter, "Packets by what became of them and why.");
    for (reason, count) in Reason::ALL.iter().zip(packets.reasons) {
        family.sample(&[("reason", &reason.name())], count);
    }
    let mut family = encoder.family(
        "lb_xdp_dropped_packets_total",
        Kind::Counter,
        "Packets dropped, by the interface they came in by and why.",
    );
    for drops in packets.drops.iter().filter(|drops| drops.is_shown()) {
        for (reason, count) in &drops.counts {
            let labels: [(&str, &dyn Display); 2] =
                [("interface", &drops.name()), ("reason", &reason.name())];
            family.sample(&labels, count);
        }
    }
    let mut family =
        encoder.family("lb_xdp_flow_events_total", Kind::Counter, "What happened in moving slots.");
    for (event, count) in FlowEvent::ALL.iter().zip(packets.flow_events) {
        family.sample(&[("reason", &event.name())], count);
    }
    let mut family = encoder.family(
        "lb_xdp_nat_events_total",
        Kind::Counter,
        "What happened to translated flows: opened, established, and so on.",
    );
    for (event, count) in NatEvent::ALL.iter().zip(packets.nat.events) {
        family.sample(&[("reason", &event.name())], count);
    }
    family.sample(&[("reason", &"expired")], packets.nat.expired);
    encoder
        .family("lb_xdp_nat_flows", Kind::Gauge, "Translated flows that are established.")
        .sample(&[], packets.nat.flows);
    let mut family = encoder.family(
        "lb_xdp_quic_datagrams_total",
        Kind::Counter,
        "Datagrams to QUIC VIPs by what led them: the connection id, or the hash and why.",
    );
    for (event, count) in QuicEvent::ALL.iter().zip(packets.quic_events) {
        family.sample(&[("reason", &event.name())], count);
    }
    if let Some(cookies) = packets.cookies {
        let mut family = encoder.family(
            "lb_xdp_returned_syn_cookies_total",
            Kind::Counter,
            "SYN cookies that came back to this network namespace, whoever had sent them, by the kernel's judgement.",
        );
        family.sample(&[("reason", &"accepted")], cookies.accepted);
        family.sample(&[("reason", &"refused")], cookies.refused);
    }
    if let Some(spread) = &packets.spread {
        encoder
            .family("lb_xdp_spread", Kind::Gauge, "Whether listeners' packets go to their workers' cores.")
            .sample(&[], u8::from(spread.on));
    }
    encoder
        .family("lb_xdp_open_slots", Kind::Gauge, "Slots that just changed owner.")
        .sample(&[], packets.slots_open);
    encoder
        .family("lb_xdp_closed_slots", Kind::Gauge, "Slots that only wait for strays.")
        .sample(&[], packets.slots_closed);
    for (name, help, count) in SLOTS {
        let mut family = encoder.family(name, Kind::Gauge, help);
        packets.tables.iter().for_each(|table| family.sample(&[("pool", &table.pool)], count(table)));
    }
    encoder
        .family("lb_xdp_attached_interfaces", Kind::Gauge, "Interfaces that carry lb_ingress.")
        .sample(&[], packets.interfaces.len());
}

/// Name, help, and where to read it.
type TableColumn = (&'static str, &'static str, fn(&TableDigest) -> u64);

const SLOTS: [TableColumn; 2] = [
    ("lb_xdp_pool_open_slots", "Slots of the pool's table that just changed owner.", |t| t.open),
    ("lb_xdp_pool_closed_slots", "Slots of the pool's table that only wait for strays.", |t| t.closed),
];

/// Name by VIP, name by backend, help, and where to read it.
type TrafficColumn = (&'static str, &'static str, &'static str, fn(&Traffic) -> u64);

const TRAFFIC: [TrafficColumn; 3] = [
    ("lb_xdp_vip_packets_total", "lb_xdp_backend_packets_total", "Packets forwarded.", |t| t.packets),
    ("lb_xdp_vip_bytes_total", "lb_xdp_backend_bytes_total", "Bytes forwarded, as they came in.", |t| {
        t.bytes
    }),
    (
        "lb_xdp_vip_new_flows_total",
        "lb_xdp_backend_new_flows_total",
        "SYNs forwarded; for UDP, flows recorded while a slot moved.",
        |t| t.new_flows,
    ),
];

fn xdp_traffic(encoder: &mut Encoder, view: &View, packets: &Packets) {
    for (by_vip, by_backend, help, value) in TRAFFIC {
        let mut family = encoder.family(by_vip, Kind::Counter, help);
        for name in view.config.vips.keys() {
            let traffic = packets.vips.iter().find(|(vip, _)| vip == name).map(|(_, traffic)| traffic);
            family.sample(&[("vip", name)], traffic.map_or(0, value));
        }
        let mut family = encoder.family(by_backend, Kind::Counter, help);
        for (pool, backend) in view.backends() {
            let Some((_, traffic)) = packets.backends.iter().find(|(id, _)| *id == backend.id) else {
                continue;
            };
            let labels: [(&str, &dyn Display); 2] = [("pool", &pool), ("backend", &backend.name)];
            family.sample(&labels, value(traffic));
        }
    }
}

fn xdp_active(encoder: &mut Encoder, view: &View, packets: &Packets) {
    const HELP: &str = "Flows of which a packet came within the last 15 to 30 seconds, estimated.";
    let mut family = encoder.family("lb_xdp_vip_active_flows", Kind::Gauge, HELP);
    for (name, flows) in &packets.active_vips {
        family.sample(&[("vip", name)], flows);
    }
    let mut family = encoder.family("lb_xdp_backend_active_flows", Kind::Gauge, HELP);
    for (pool, backend) in view.backends() {
        let Some(flows) = packets.active_of_backend(backend.id) else { continue };
        let labels: [(&str, &dyn Display); 2] = [("pool", &pool), ("backend", &backend.name)];
        family.sample(&labels, flows);
    }
}

fn steer(encoder: &mut Encoder, packets: &Packets) {
    let mut family = encoder.family(
        "lb_steer_connections_total",
        Kind::Counter,
        "SYNs that lb_steer placed, by how the worker was chosen.",
    );
    for report in &packets.steer {
        for (reason, count) in [
            ("core", report.by_core),
            ("hash", report.by_hash),
            ("missing", report.missing),
            ("relieved", report.relieved),
        ] {
            let labels: [(&str, &dyn Display); 2] = [("listener", &report.listener), ("reason", &reason)];
            family.sample(&labels, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::{fixture, packets::InterfaceDrops},
        keepalive::Kept,
        metrics::encode::checker,
        model::BackendId,
    };

    const LABELS: [&str; 12] = [
        "vip",
        "listener",
        "route",
        "pool",
        "backend",
        "name",
        "worker",
        "reason",
        "code",
        "kind",
        "interface",
        "version",
    ];

    #[test]
    fn every_counter_comes_out_with_its_labels() {
        let mut view = fixture::view();
        view.names = [fixture::name()].into();
        view.workers[1].metrics.listeners[0].accepted.add(7);
        view.workers[0].metrics.listeners[0].responses[1].add(5);
        view.workers[0].metrics.backends[2].in_flight.add(3);
        view.workers[0].metrics.reason(CloseReason::NoRoute).add(2);
        view.workers[1].metrics.log_dropped.add(6);
        view.workers[0].metrics.backends[2].shelf_reuses.add(14);
        let connection = std::fs::File::open("/dev/null").unwrap().into();
        let kept = Kept { connection, until: view.started };
        assert!(view.shelf.put(BackendId(2), kept, 1, 1).is_none());
        view.workers[1].metrics.cookies_refused.add(4);
        view.workers[0].metrics.listeners[0].reasons.of(CloseReason::RateLimit).add(4);
        view.workers[1].metrics.listeners[0].reasons.of(CloseReason::RateLimit).add(5);
        view.log.lines.add(8);
        view.health.set(BackendId(2), false);
        view.checks[&BackendId(1)].metrics.of(crate::metrics::ProbeEnd::WrongAnswer).add(12);
        view.checks[&BackendId(1)].metrics.changes.add(13);
        view.pools["app"].set_panic(true);
        let mut packets = fixture::packets();
        packets.reasons[Reason::Mtu as usize] = 11;
        packets.drops.push(InterfaceDrops {
            interface: Some("eth0".to_owned()),
            counts: vec![(Reason::Mtu, 11), (Reason::Ttl, 0)],
        });
        packets.nat.events[NatEvent::Opened as usize] = 21;
        packets.nat.flows = 22;
        packets.cookies = Some(crate::admin::Cookies { accepted: 5, refused: 2 });
        packets.spread = Some(crate::admin::Spread { on: true, why: String::new() });
        packets.vips.push(("dns".into(), Traffic { packets: 4, bytes: 400, new_flows: 1 }));
        packets.backends.push((BackendId(3), Traffic { packets: 4, bytes: 400, new_flows: 1 }));
        packets.active_vips.push(("dns".into(), 17));
        packets.active_backends.push((BackendId(3), 16));
        let samples = checker::parse(&render(&view, Some(&packets)));
        for (series, value) in [
            (r#"lb_listener_accepted_connections_total{listener="web",worker="1"}"#, 7.0),
            (r#"lb_listener_accepted_connections_total{listener="web",worker="0"}"#, 0.0),
            (r#"lb_listener_responses_total{listener="web",worker="0",code="2xx"}"#, 5.0),
            (r#"lb_upstream_in_flight_exchanges{pool="app",backend="127.0.0.1:9002",worker="0"}"#, 3.0),
            (r#"lb_upstream_shelf_reuses_total{pool="app",backend="127.0.0.1:9002",worker="0"}"#, 14.0),
            (r#"lb_upstream_shelved_connections{pool="app",backend="127.0.0.1:9002"}"#, 1.0),
            (r#"lb_upstream_shelved_connections{pool="app",backend="127.0.0.1:9001"}"#, 0.0),
            (r#"lb_log_dropped_total{worker="1"}"#, 6.0),
            (r#"lb_listener_closes_total{listener="web",reason="rate-limit"}"#, 9.0),
            (r#"lb_log_lines_total"#, 8.0),
            (r#"lb_worker_refused_cookies_total{worker="1"}"#, 4.0),
            (r#"lb_worker_closes_total{worker="0",reason="no-route"}"#, 2.0),
            (r#"lb_health_backend_up{pool="app",backend="127.0.0.1:9001"}"#, 1.0),
            (r#"lb_health_backend_up{pool="app",backend="127.0.0.1:9002"}"#, 0.0),
            (
                r#"lb_health_checks_total{pool="app",backend="127.0.0.1:9001",kind="tcp",code="wrong-answer"}"#,
                12.0,
            ),
            (r#"lb_health_changes_total{pool="app",backend="127.0.0.1:9001"}"#, 13.0),
            (r#"lb_health_in_panic{pool="app"}"#, 1.0),
            (r#"lb_health_panics_total{pool="app"}"#, 1.0),
            (r#"lb_names_lookups_total{name="app.internal:80",reason="timed-out"}"#, 3.0),
            (r#"lb_names_backends{name="app.internal:80"}"#, 1.0),
            (r#"lb_xdp_packets_total{reason="mtu"}"#, 11.0),
            (r#"lb_xdp_dropped_packets_total{interface="eth0",reason="mtu"}"#, 11.0),
            (r#"lb_xdp_dropped_packets_total{interface="eth0",reason="ttl"}"#, 0.0),
            (r#"lb_xdp_nat_events_total{reason="opened"}"#, 21.0),
            (r#"lb_xdp_nat_flows"#, 22.0),
            (r#"lb_xdp_returned_syn_cookies_total{reason="refused"}"#, 2.0),
            ("lb_xdp_spread", 1.0),
            (r#"lb_xdp_vip_bytes_total{vip="dns"}"#, 400.0),
            (r#"lb_xdp_vip_active_flows{vip="dns"}"#, 17.0),
            (r#"lb_xdp_backend_active_flows{pool="dns",backend="10.0.1.53"}"#, 16.0),
            (r#"lb_xdp_backend_packets_total{pool="dns",backend="10.0.1.53"}"#, 4.0),
            (r#"lb_steer_connections_total{listener="web",reason="hash"}"#, 9.0),
        ] {
            assert_eq!(samples.get(series), Some(&value), "{series}");
        }
        for series in samples.keys() {
            let inside = series.split_once('{').map_or("", |(_, labels)| labels);
            for label in inside.split(',').filter_map(|pair| pair.split_once("=\"")).map(|(label, _)| label) {
                assert!(LABELS.contains(&label), "{series}");
            }
        }
    }

    #[test]
    fn without_a_packet_path_its_families_are_absent() {
        let text = render(&fixture::view(), None);
        assert!(!text.contains("lb_xdp_"));
        assert!(!checker::parse(&text).is_empty());
    }
}
