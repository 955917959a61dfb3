//! `GET /v1/status`: the daemon on one page.

use lb_abi::reason::Reason;
use serde_json::{Value, json};

use super::{certificates, packets::Packets, standing::Standing, view::View};
use crate::config::SynCookies;

/// The document. `packets` is `None` where nothing is attached, or where its owner did not answer.
pub fn render(view: &View, packets: Option<&Packets>) -> Value {
    let (up, down): (Vec<_>, Vec<_>) =
        view.backends().partition(|(_, backend)| view.health.is_up(backend.id));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "state": state(view),
        "degraded": view.degraded,
        "drift": view.drift,
        "generation": view.snapshot.generation,
        "etag": view.etag,
        "config": {
            "path": view.config_path.as_ref().map(|path| path.display().to_string()),
            "digest": view.config_digest,
        },
        "uptime_seconds": view.started.elapsed().as_secs(),
        "workers": view.workers.iter().filter_map(|worker| {
            let open: u64 = view.snapshot.listeners.iter()
                .map(|listener| worker.metrics.listener(listener.id).open.value())
                .sum();
            // One that has left is there as long as it has something left to do.
            (!worker.has_left || open > 0).then(|| json!({
                "worker": worker.id, "core": worker.core, "leaves": worker.has_left, "open_connections": open,
                "stuck_seconds": worker.metrics.stuck_seconds.value(),
            }))
        }).collect::<Vec<_>>(),
        "limits": { "connections": view.snapshot.limits.connections, "open_files": view.open_files },
        "kernel_tls": { "on": view.no_kernel_tls.is_none(), "why": view.no_kernel_tls },
        "listeners": view.snapshot.listeners.iter().map(|listener| json!({
            "listener": listener.name,
            "protocol": listener.protocol,
            "bind": view.config.listeners.get(&listener.name).map(crate::config::Listener::spelled),
            "steer": steer_mode(&listener.name, packets),
            "syn_cookies": syn_cookies(view, &listener.name, packets),
        })).collect::<Vec<_>>(),
        "backends": {
            "up": up.len(),
            "down": down.len(),
            "panic": view.snapshot.pools.iter().map(|pool| &*pool.name).filter(|pool| view.is_panic(pool))
                .collect::<Vec<_>>(),
            "down_reasons": down.iter().map(|(pool, backend)| {
                let standing = Standing::of(view, pool, backend);
                json!({
                    "backend": format!("{pool}/{}", backend.name),
                    "state": standing.state(),
                    "since_seconds": standing.since_seconds(),
                    "reason": standing.reason(),
                })
            }).collect::<Vec<_>>(),
            "down_names": down.iter().map(|(pool, backend)| format!("{pool}/{}", backend.name))
                .collect::<Vec<_>>(),
        },
        "overrides": view.overrides,
        "draining": view.predecessors.list(),
        "xdp": packets.map(xdp),
        "warnings": view.warnings.iter().cloned().chain(certificates::warnings(&view.certificates)).collect::<Vec<_>>(),
    })
}

fn state(view: &View) -> &'static str {
    match &view.degraded {
        _ if view.is_draining() => "draining",
        Some(_) => "degraded",
        None => "ready",
    }
}

fn xdp(packets: &Packets) -> Value {
    json!({
        "interfaces": packets.interfaces,
        "slots": { "open": packets.slots_open, "closed": packets.slots_closed },
        "tables": packets.tables,
        "spread": packets.spread,
        "syn_cookies": packets.cookies.map(|cookies| json!({
            "sent": packets.reason(Reason::SynCookie),
            "accepted": cookies.accepted,
            "refused": cookies.refused,
        })),
    })
}

/// What `steer` became; `None` where the kernel's own hash chooses because `lb_steer` is not attached.
fn steer_mode(listener: &str, packets: Option<&Packets>) -> Option<crate::config::Steer> {
    packets?.steer.iter().find(|report| &*report.listener == listener).map(|report| report.mode)
}

/// Who answers a SYN flood for a listener.
fn syn_cookies(view: &View, listener: &str, packets: Option<&Packets>) -> &'static str {
    let may = view.config.listeners.get(listener).is_some_and(|l| l.syn_cookies == SynCookies::Auto);
    if may && packets.is_some_and(|packets| packets.cookies.is_some()) { "xdp" } else { "kernel" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admin::fixture, model::BackendId};

    #[test]
    fn says_what_does_not_run_as_it_should() {
        let mut view = fixture::view();
        let status = render(&view, None);
        assert_eq!((&status["state"], &status["degraded"]), (&json!("ready"), &Value::Null));
        assert_eq!((&status["drift"], &status["overrides"]), (&Value::Null, &json!([])));
        view.degraded = Some("lb.toml:3:1: unknown key".to_owned());
        view.drift = Some("lb.toml is not what runs".to_owned());
        view.overrides = [fixture::drained()].into();
        let status = render(&view, None);
        assert_eq!((&status["state"], &status["drift"]), (&json!("degraded"), &json!(view.drift)));
        assert_eq!(status["degraded"], "lb.toml:3:1: unknown key");
        let said = json!({ "pool": "app", "backend": "127.0.0.1:9002", "drained": true, "weight": 3 });
        assert_eq!(status["overrides"][0], said);
    }

    #[test]
    fn names_what_is_down_and_what_is_lost() {
        let view = fixture::view();
        view.health.set(BackendId(2), false);
        let status = render(&view, None);
        assert_eq!(status["limits"], json!({ "connections": 200_000, "open_files": 20_512 }));
        assert_eq!(status["kernel_tls"], json!({ "on": false, "why": "no module" }));
        assert_eq!(status["backends"]["up"], 2);
        assert_eq!(status["backends"]["down_names"], json!(["app/127.0.0.1:9002"]));
        let reasons = json!([{ "backend": "app/127.0.0.1:9002", "state": "down", "since_seconds": null, "reason": null }]);
        assert_eq!(status["backends"]["down_reasons"], reasons);
        assert_eq!(status["warnings"][0], "no CAP_BPF: lb_steer is not attached");
        assert_eq!(status["xdp"], Value::Null);
        assert_eq!(status["listeners"][0]["steer"], Value::Null);
        let status = render(&view, Some(&fixture::packets()));
        assert_eq!(status["listeners"][0]["steer"], "hash");
        assert_eq!(status["listeners"][0]["syn_cookies"], "kernel");
        let mut packets = fixture::packets();
        packets.reasons[Reason::ALL.iter().position(|reason| *reason == Reason::SynCookie).unwrap()] = 7;
        packets.cookies = Some(crate::admin::Cookies { accepted: 5, refused: 2 });
        packets.spread = Some(crate::admin::Spread { on: false, why: "xdp.spread is off".to_owned() });
        let status = render(&view, Some(&packets));
        assert_eq!(status["listeners"][0]["syn_cookies"], "xdp");
        assert_eq!(status["xdp"]["spread"], json!({ "on": false, "why": "xdp.spread is off" }));
        assert_eq!(status["xdp"]["syn_cookies"], json!({ "sent": 7, "accepted": 5, "refused": 2 }));
    }
}
