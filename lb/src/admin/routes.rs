//! Routes, as an operator sees them.

use serde_json::{Value, json};

use super::view::View;
use crate::config::{Condition, Conditions, Protocol, Redirect, RouteAction, RouteSnapshot, Scheme, Test};

/// `GET /v1/show/routes`, in the order they are tried.
pub(super) fn rows(view: &View) -> Vec<Value> {
    let mut rows = Vec::new();
    for listener in &view.snapshot.listeners {
        for route in listener.routes.iter().filter_map(|id| view.snapshot.routes.get(id.index())) {
            let mut row = json!({
                "route": route.name,
                "listener": listener.name,
                "host": route.host.spelled(),
                "by": match listener.protocol {
                    Protocol::Http => "host",
                    Protocol::Tcp | Protocol::Udp => "sni",
                },
                "path": route.path.spelled(),
                "pool": null,
                "priority": route.priority,
                "when": conditions(&route.conditions),
                "action": action(view, route),
                "timeout_ms": u64::try_from(route.timeout.as_millis()).unwrap_or(u64::MAX),
                "deadline_ms": route.deadline.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            });
            route.conditions.show(&mut row);
            route.policy.show(&mut row);
            let edits =
                [("request_headers", &route.request_headers), ("response_headers", &route.response_headers)];
            for (key, edits) in edits.into_iter().filter(|(_, edits)| !edits.is_empty()) {
                row[key] = edits.to_json();
            }
            match &route.action {
                RouteAction::Forward { pool, rewrite } => {
                    row["pool"] = json!(view.snapshot.pool(*pool).map(|pool| &pool.name));
                    row["rewrite"] = json!(rewrite.to_json());
                }
                RouteAction::Redirect(redirect) => row["redirect"] = redirect.to_json(),
                RouteAction::Respond(respond) => row["respond"] = respond.to_json(),
            }
            rows.push(row);
        }
    }
    rows
}

/// What must hold besides host and path, in one line; `None`: nothing.
pub(super) fn conditions(conditions: &Conditions) -> Option<String> {
    let methods = (!conditions.methods.is_empty()).then(|| conditions.methods.join("|"));
    let headers = conditions.headers.iter().map(|condition| condition_of("header", condition));
    let query = conditions.query.iter().map(|condition| condition_of("query", condition));
    let all: Vec<String> = methods.into_iter().chain(headers).chain(query).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn condition_of(kind: &str, Condition { name, test }: &Condition) -> String {
    match test {
        Test::Exact(text) => format!("{kind} {name}={text:?}"),
        Test::Prefix(text) => format!("{kind} {name} begins with {text:?}"),
        Test::Pattern(pattern) => format!("{kind} {name} matches {:?}", pattern.text()),
        Test::Present => format!("{kind} {name} present"),
        Test::Absent => format!("{kind} {name} absent"),
    }
}

/// What becomes of a request, in one line.
pub(super) fn action(view: &View, route: &RouteSnapshot) -> String {
    match &route.action {
        RouteAction::Forward { pool, rewrite } => {
            let mut text = match view.snapshot.pool(*pool) {
                Some(pool) => format!("pool {}", pool.name),
                None => "no pool".to_owned(),
            };
            if let Some(path) = &rewrite.path {
                text += &format!(", path {}", path.text);
            }
            if let Some(host) = &rewrite.host {
                text += &format!(", host {host}");
            }
            text
        }
        RouteAction::Redirect(redirect) => format!("redirect {} to {}", redirect.status, target(redirect)),
        RouteAction::Respond(respond) => format!("respond {}", respond.status),
    }
}

/// As a URL, with words for what stays as it was.
fn target(redirect: &Redirect) -> String {
    let scheme = match redirect.scheme {
        Some(Scheme::Http) => "http",
        Some(Scheme::Https) => "https",
        None => "SCHEME",
    };
    let host = redirect.host.as_deref().unwrap_or("HOST");
    let port = redirect.port.map_or_else(String::new, |port| format!(":{port}"));
    let path = redirect.path.as_ref().map_or("/*", |path| &path.text);
    format!("{scheme}://{host}{port}{path}")
}
