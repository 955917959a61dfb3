//! `pool.health` and `pool.outlier` as they are written.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    BodyTest, CheckKind, CheckTrust, Health, HttpCheck, Outlier, TlsCheck, UdpCheck,
    file::show_duration,
    show_key::{file_reference, put},
};

pub(super) fn health(health: &Health) -> Value {
    let mut table = json!({
        "every": show_duration(health.every),
        "timeout": show_duration(health.timeout),
        "fall": health.fall,
        "rise": health.rise,
    });
    put(&mut table, "recheck", health.recheck.map(show_duration));
    put(&mut table, "jitter", (!health.jitter.is_zero()).then(|| show_duration(health.jitter)));
    let own_port = || health.port.map_or_else(|| "auto".to_owned(), |port| port.to_string());
    match &health.kind {
        CheckKind::Http(http) => {
            put(&mut table, "port", health.port);
            put_http(&mut table, health.kind.name(), http);
        }
        CheckKind::Grpc(grpc) => {
            table[health.kind.name()] = json!(grpc.service);
            put(&mut table, "port", health.port);
            put(&mut table, "host", grpc.host.as_ref());
        }
        CheckKind::Udp(UdpCheck { send, expect }) => {
            table["udp"] = json!(own_port());
            put(&mut table, "send", send.as_ref().map(|payload| &payload.text));
            put(&mut table, "expect", expect.as_ref().map(|payload| &payload.text));
        }
        CheckKind::Exec(program) => {
            table["exec"] = json!(program);
            put(&mut table, "port", health.port);
        }
        kind @ (CheckKind::Tcp
        | CheckKind::Tls(_)
        | CheckKind::Redis
        | CheckKind::Postgres
        | CheckKind::Mysql) => {
            table[kind.name()] = json!(own_port());
        }
    }
    if let Some(TlsCheck { sni, trust }) = health.kind.tls() {
        put(&mut table, "sni", sni.as_ref());
        match trust {
            CheckTrust::Anyone => {}
            CheckTrust::Host => table["verify"] = json!(true),
            CheckTrust::File(path) => table["ca"] = json!(file_reference(path)),
        }
    }
    table
}

fn put_http(table: &mut Value, key: &str, http: &HttpCheck) {
    table[key] = json!(http.path);
    put(table, "method", http.is_head.then_some("HEAD"));
    table["status"] = json!(http.status.to_string());
    let body = http.body.as_ref().map(|body| match body {
        BodyTest::Text(text) => json!(text),
        BodyTest::Pattern(pattern) => json!({ "regex": pattern.text() }),
    });
    put(table, "body", body);
    put(table, "host", http.host.as_ref());
    let headers: BTreeMap<_, _> = http.headers.iter().cloned().collect();
    put(table, "headers", (!headers.is_empty()).then_some(headers));
}

pub(super) fn outlier(outlier: &Outlier) -> Value {
    let mut table = json!({
        "consecutive_errors": outlier.consecutive_errors,
        "requests": outlier.requests,
        "window": show_duration(outlier.window),
        "ejection": show_duration(outlier.ejection),
        "ejection_max": show_duration(outlier.ejection_max),
        "max_ejected": format!("{}%", outlier.max_ejected_percent),
    });
    put(&mut table, "error_ratio", outlier.error_percent.map(|percent| format!("{percent}%")));
    let times = outlier.latency_tenths.map(|tenths| format!("{}.{}x", tenths / 10, tenths % 10));
    put(&mut table, "latency", times);
    table
}
