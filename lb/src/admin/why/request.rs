//! `GET /v1/why?request=...`: which route would take a request, by what rule, and which others would have.
//!
//! The head is written as a client would write it and read by the code that serves clients; routes are asked as compiled
//! from the snapshot that runs. Nothing is counted or sent.

use std::time::Instant;

use serde_json::{Value, json};

use super::{handshake, step};
use crate::{
    admin::{
        packets::Refusal,
        routes::{action, conditions},
        standing::Standing,
        view::View,
    },
    config::{HostMatch, ListenerSnapshot, PathMatch, PoolSnapshot, Protocol, RouteAction, RouteSnapshot},
    l7::{
        answer::Answer,
        edit::RequestEdits,
        http1::{Forwarding, HeadLimits, Parsed, RequestHead},
        route::{self, Asked, Routes},
    },
    model::{RequestQuestion, Scheme, reason::CloseReason},
    worker::{Lead, lead},
};

/// Backends of which it is said why nobody goes there.
const REASONS_MAX: usize = 3;

/// As for a packet: `outcome` is forwarded, redirected, answered or refused.
///
/// # Errors
/// No listener is meant, or more than one can be.
pub fn render(view: &View, question: &RequestQuestion) -> Result<Value, Refusal> {
    let listener = find_listener(view, question)?;
    let mut steps = Vec::new();
    let outcome = tell(view, listener, question, &mut steps);
    Ok(answer(question, outcome, steps))
}

/// Outcome, reason and text, and the steps that led there.
pub(super) fn answer(
    question: &RequestQuestion,
    (outcome, reason, text): (&'static str, Option<&'static str>, String),
    steps: Vec<Value>,
) -> Value {
    json!({
        "question": question.to_string(),
        "outcome": outcome,
        "reason": reason,
        "text": text,
        "steps": steps,
    })
}

/// The listener that is meant, which speaks what is asked with; of relays only those that have routes.
///
/// # Errors
/// There is none, or there are several.
pub(super) fn find_listener<'v>(
    view: &'v View,
    question: &RequestQuestion,
) -> Result<&'v ListenerSnapshot, Refusal> {
    let refuse = |message: String| Err(Refusal::Question(message));
    let ends_tls = |listener: &ListenerSnapshot| {
        view.config.listeners.get(&listener.name).is_some_and(|config| !config.tls.is_empty())
    };
    let is_meant = |listener: &&ListenerSnapshot| match (question.scheme, listener.protocol) {
        (Scheme::Http, Protocol::Http) => !ends_tls(listener),
        (Scheme::Https, Protocol::Http) => ends_tls(listener),
        (Scheme::Tls, Protocol::Tcp) => !listener.routes.is_empty(),
        _ => false,
    };
    let kind = if question.scheme == Scheme::Tls { "tcp" } else { question.scheme.name() };
    let all: Vec<_> = view.snapshot.listeners.iter().filter(is_meant).collect();
    let names =
        |of: &[&ListenerSnapshot]| of.iter().map(|listener| &*listener.name).collect::<Vec<_>>().join(", ");
    if let Some(name) = &question.listener {
        return match all.iter().find(|listener| *listener.name == **name) {
            Some(listener) => Ok(listener),
            None => refuse(format!("there is no {kind} listener {name:?}; there are {}", names(&all))),
        };
    }
    let port = question.port.unwrap_or(question.scheme.port());
    let has_port = |listener: &&&ListenerSnapshot| {
        let config = view.config.listeners.get(&listener.name);
        let mut ranges = config.into_iter().flat_map(|config| &config.ranges);
        listener.bind.iter().any(|bind| bind.port() == port)
            || ranges.any(|range| (range.first..=range.last).contains(&port))
    };
    let at_port: Vec<_> = all.iter().filter(has_port).copied().collect();
    match (&at_port[..], &all[..]) {
        ([listener], _) => Ok(listener),
        ([], [listener]) if question.port.is_none() => Ok(listener),
        ([], []) if question.scheme == Scheme::Tls => {
            refuse("there is no tcp listener with routes".to_owned())
        }
        ([], []) => refuse(format!("there is no {kind} listener")),
        ([], _) => {
            refuse(format!("no {kind} listener has port {port}; say listener= one of {}", names(&all)))
        }
        (several, _) => refuse(format!("port {port} is of {}: say listener= one of them", names(several))),
    }
}

fn tell(
    view: &View,
    listener: &ListenerSnapshot,
    question: &RequestQuestion,
    steps: &mut Vec<Value>,
) -> (&'static str, Option<&'static str>, String) {
    steps.push(step("listener", format!("listener {}", listener.name), json!({ "listener": listener.name })));
    if question.scheme == Scheme::Https
        && let Err((reason, text)) = handshake::tell(view, listener, question, steps)
    {
        return ("refused", Some(reason.name()), text);
    }
    let buf = written(question);
    let mut head = RequestHead::default();
    let limits = &view.snapshot.limits;
    let parsed = head.parse(&buf, &HeadLimits::new(limits.head_bytes, limits.head_fields));
    let reason = match parsed {
        Ok(Parsed::Complete) => None,
        Ok(Parsed::Partial) => Some(CloseReason::HeaderSyntax),
        Err(reason) => Some(reason),
    };
    if let Some(reason) = reason {
        let text = format!("refused with {}: {}", reason.status(), reason.describe());
        return ("refused", Some(reason.name()), text);
    }
    let trusted = question
        .client
        .and_then(|client| listener.trusted_proxies.iter().find(|net| net.contains(&client.to_canonical())));
    if let Some(net) = trusted {
        let text = format!("the client is a trusted proxy, of {net}: its forwarding headers are believed");
        steps.push(step("client", text, json!({ "trusted": net.to_string() })));
    }
    let asked = Asked::new(&head, &buf, trusted.is_some());
    let (path, forwarded) = (lossy(asked.path), lossy(head.forwarded_path(&buf)));
    if !question.target.starts_with(&*path) || path != forwarded {
        let text = format!("routed as {path}, forwarded as {forwarded}");
        steps.push(step("path", text, json!({ "routed": path, "forwarded": forwarded })));
    }
    let mut matching = route::all(&view.snapshot, listener.id, &asked);
    let Some(taker) = matching.next() else {
        let Some(pool) = listener.pool.and_then(|id| view.snapshot.pool(id)) else {
            let routes = Routes::build(&view.snapshot, listener.id);
            let allow: Vec<&str> = routes.allowed(&asked).collect();
            if !allow.is_empty() {
                let text =
                    format!("no route has this method: answered with 405, Allow: {}", allow.join(", "));
                return ("refused", Some(CloseReason::MethodNotAllowed.name()), text);
            }
            return ("refused", Some("no-route"), "no route takes it: answered with 404".to_owned());
        };
        let text = format!("no route takes it: pool {} of the listener", pool.name);
        steps.push(step("pool", ups(view, pool), json!({ "pool": pool.name })));
        steps.extend(led(view, pool, question, (&head, &buf), trusted.is_some()));
        return ("forwarded", None, text);
    };
    let why = rule(taker);
    steps.push(step("route", format!("route {}: {why}", taker.name), json!({ "route": taker.name })));
    for beaten in matching {
        let text = format!(
            "route {} would take it too, {}: {}",
            beaten.name,
            advantage(taker, beaten),
            rule(beaten)
        );
        steps.push(step("beaten", text, json!({ "route": beaten.name })));
    }
    let outcome = act(view, taker, question, &head, &buf, trusted.is_some(), steps);
    (outcome, None, format!("route {} takes it: {}", taker.name, action(view, taker)))
}

/// What becomes of it at its route.
fn act(
    view: &View,
    taker: &RouteSnapshot,
    question: &RequestQuestion,
    head: &RequestHead,
    buf: &[u8],
    is_trusted: bool,
    steps: &mut Vec<Value>,
) -> &'static str {
    if let Some(answer) = Answer::new(taker) {
        let forwarding = Forwarding {
            client: question.client.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into()),
            scheme: question.scheme.name(),
            authority: b"",
            port: question.port.unwrap_or(question.scheme.port()),
            is_trusted,
            says_forwarded: false,
            request_id: [0; 2],
        };
        let mut out = Vec::new();
        // A question always has a host.
        _ = answer.encode(&mut out, buf, head, &forwarding, false);
        let text = lossy(&out);
        let location = text.lines().find_map(|line| line.strip_prefix("Location: "));
        let said =
            location.map_or_else(|| format!("{}", answer.status()), |to| format!("{} {to}", answer.status()));
        steps.push(step("answer", said, json!({ "status": answer.status(), "location": location })));
        return if location.is_some() { "redirected" } else { "answered" };
    }
    if let RouteAction::Forward { pool, .. } = &taker.action
        && let Some(pool) = view.snapshot.pool(*pool)
    {
        steps.push(step("pool", ups(view, pool), json!({ "pool": pool.name })));
        steps.extend(led(view, pool, question, (head, buf), is_trusted));
    }
    if let Some(path) = RequestEdits::new(taker).and_then(|edits| edits.path) {
        let mut out = Vec::new();
        path.push(&mut out, head.path(buf), head.forwarded_path(buf));
        let path = lossy(&out);
        steps.push(step("rewrite", format!("path {path}"), json!({ "path": path })));
    }
    "forwarded"
}

/// An authority whose port is said.
fn with_port(authority: &str, scheme: Scheme) -> String {
    let has_port =
        authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    if has_port { authority.to_owned() } else { format!("{authority}:{}", scheme.port()) }
}

/// The head, as a client would send it.
fn written(question: &RequestQuestion) -> Vec<u8> {
    let target = match &*question.target {
        "" if question.method == "OPTIONS" => "*".to_owned(),
        // It names no resource but a host and port (RFC 9110, 9.3.6).
        _ if question.method == "CONNECT" => with_port(&question.authority, question.scheme),
        target if target.starts_with('/') => target.to_owned(),
        query => format!("/{query}"),
    };
    let mut text = format!("{} {target} HTTP/1.1\r\nHost: {}\r\n", question.method, question.authority);
    for (name, value) in &question.headers {
        text.extend([name, ": ", value, "\r\n"]);
    }
    text += "\r\n";
    text.into_bytes()
}

pub(super) fn ups(view: &View, pool: &crate::config::PoolSnapshot) -> String {
    let up = pool.backends.iter().filter(|backend| view.health.is_up(backend.id)).count();
    let mut text = format!("pool {}, {up} of {} backends up", pool.name, pool.backends.len());
    if view.is_panic(&pool.name) {
        text += " (panic: all are used, whatever they are)";
    }
    for backend in pool.backends.iter().filter(|backend| !view.health.is_up(backend.id)).take(REASONS_MAX) {
        let standing = Standing::of(view, &pool.name, backend);
        text.extend(["; ", &*backend.name, " is ", standing.state()]);
        if let Some(reason) = standing.reason() {
            text.extend([" (", reason, ")"]);
        }
    }
    let unresolved =
        view.names.iter().filter(|name| name.backends.is_empty() && name.pools.contains(&pool.name));
    for name in unresolved.take(REASONS_MAX) {
        text.extend(["; ", &*name.name, " stands for none (", name.condition.name(), ")"]);
    }
    text
}

/// Which backend of its pool takes it, where that is for the request to say.
fn led(
    view: &View,
    pool: &PoolSnapshot,
    question: &RequestQuestion,
    request: (&RequestHead, &[u8]),
    is_trusted: bool,
) -> Option<Value> {
    let Lead { by, backend } =
        lead(pool, &view.health, question.client, request, is_trusted, Instant::now())?;
    let name = backend.and_then(|at| pool.backends.get(at)).map(|backend| &*backend.name);
    let text = match name {
        Some(name) => format!("{by} leads to {name}"),
        None if question.client.is_none() && by == "address" => {
            "by the client's address, which from= would say".to_owned()
        }
        None => format!("by {by}, and nobody is up"),
    };
    Some(step("backend", text, json!({ "by": by, "backend": name })))
}

/// By what it matches.
fn rule(route: &RouteSnapshot) -> String {
    let host = match (&route.host, route.host.spelled()) {
        (HostMatch::Exact(_), Some(host)) => format!("host {host}"),
        (_, Some(host)) => format!("wildcard host {host}"),
        (_, None) => "any host".to_owned(),
    };
    let path = match (&route.path, route.path.spelled()) {
        (PathMatch::Exact(_), Some(path)) => format!("path {path}"),
        (PathMatch::Prefix(_), Some(path)) => format!("prefix {path}"),
        (_, Some(path)) => format!("pattern {path}"),
        (_, None) => "any path".to_owned(),
    };
    let rest = conditions(&route.conditions).map_or_else(String::new, |rest| format!(", {rest}"));
    format!("{host}, {path}{rest}")
}

/// Why the one goes before the other.
fn advantage(taker: &RouteSnapshot, beaten: &RouteSnapshot) -> &'static str {
    let count = |route: &RouteSnapshot| route.conditions.count();
    if taker.host != beaten.host {
        "but its host is less specific"
    } else if taker.path != beaten.path && !is_pattern(taker, beaten) {
        "but its path is less specific"
    } else if count(taker) != count(beaten) {
        "but it has fewer conditions"
    } else if taker.priority != beaten.priority {
        "but its priority is lower"
    } else {
        "but its name comes later"
    }
}

/// Patterns are equally specific.
fn is_pattern(taker: &RouteSnapshot, beaten: &RouteSnapshot) -> bool {
    matches!((&taker.path, &beaten.path), (PathMatch::Segments(_), PathMatch::Segments(_)))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        admin::fixture,
        config::{BackendIds, Snapshot, parse},
        model::Generation,
    };

    fn view() -> View {
        let text = r#"
            version = 1
            [listener.web]
            bind = ["[::1]:80"]
            protocol = "http"
            trusted_proxies = ["10.0.0.0/8"]
            [listener.other]
            bind = ["[::1]:81"]
            protocol = "http"
            pool = "p"
            [route.api]
            listener = "web"
            host = ["api.example"]
            path = "/v1/*"
            pool = "p"
            rewrite = { path = "/*" }
            [route.canary]
            listener = "web"
            host = ["api.example"]
            path = "/v1/*"
            headers = { X-Canary = "1" }
            pool = "p"
            [route.all]
            listener = "web"
            host = ["*.example"]
            pool = "p"
            [route.secure]
            listener = "web"
            headers = { X-Forwarded-Proto = "http" }
            redirect = { scheme = "https" }
            [route.a-user]
            listener = "web"
            path = "/{name}"
            respond = { status = 410 }
            [route.upload]
            listener = "web"
            path = "/up/load"
            method = ["PUT", "POST"]
            pool = "p"
            [route.b-user]
            listener = "web"
            path = "/{name:[a-z]+}"
            priority = 0
            pool = "p"
            [pool.p]
            backends = ["10.0.0.1:80"]
        "#;
        let config = parse("f", text).unwrap().config;
        let snapshot = Snapshot::build(&config, Generation(1), &mut BackendIds::new()).unwrap();
        View { config: Arc::new(config), snapshot: Arc::new(snapshot), ..fixture::view() }
    }

    fn ask(question: &str) -> Result<Value, Refusal> {
        render(&view(), &question.parse().unwrap_or_else(|wrong| panic!("{question}: {wrong}")))
    }

    /// Outcome, the line, and the steps behind the listener.
    fn said(question: &str) -> (String, String, Vec<String>) {
        let answer = ask(question).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let steps = answer["steps"].as_array().unwrap().iter().skip(1);
        let steps = steps.map(|step| format!("{}: {}", text(&step["step"]), text(&step["text"])));
        (text(&answer["outcome"]), text(&answer["text"]), steps.collect())
    }

    #[test]
    fn the_taker_and_whom_it_beat_are_named() {
        let (outcome, text, steps) = said("http://api.example/v1/a%2Fb?x=1 header:x-canary=1");
        assert_eq!((&*outcome, &*text), ("forwarded", "route canary takes it: pool p"));
        assert_eq!(
            steps,
            [
                "path: routed as /v1/a/b, forwarded as /v1/a%2Fb",
                "route: route canary: host api.example, prefix /v1/*, header x-canary=\"1\"",
                "beaten: route api would take it too, but it has fewer conditions: host api.example, prefix /v1/*",
                "beaten: route all would take it too, but its host is less specific: wildcard host *.example, any path",
                "pool: pool p, 1 of 1 backends up",
            ]
        );
        let (_, text, steps) = said("http://api.example/v1/a%2Fb");
        assert_eq!(text, "route api takes it: pool p, path /*");
        assert_eq!(steps.last().unwrap(), "rewrite: path /a%2Fb");
    }

    #[test]
    fn answers_of_our_own_are_shown() {
        let (outcome, text, steps) = said("http://x/a/b?c header:X-Forwarded-Proto=http from=10.1.2.3");
        assert_eq!(
            (&*outcome, &*text),
            ("redirected", "route secure takes it: redirect 302 to https://HOST/*")
        );
        assert_eq!(
            steps[0],
            "client: the client is a trusted proxy, of 10.0.0.0/8: its forwarding headers are believed"
        );
        assert_eq!(steps.last().unwrap(), "answer: 302 https://x/a/b?c");
        // Without a word on who asks nobody is believed.
        let (outcome, text, _) = said("http://x/a/b header:X-Forwarded-Proto=http");
        assert_eq!((&*outcome, &*text), ("refused", "no route takes it: answered with 404"));
        let (outcome, text, _) = said("http://x/up/load");
        assert_eq!(
            (&*outcome, &*text),
            ("refused", "no route has this method: answered with 405, Allow: POST, PUT")
        );
        let (outcome, _, steps) = said("http://x/ann");
        assert_eq!(outcome, "answered");
        assert!(steps[1].contains("b-user would take it too, but its name comes later"), "{steps:?}");
    }

    #[test]
    fn what_no_client_may_send_is_refused_as_it_would_be() {
        for (question, reason) in [
            ("http://x/a/../../b", "target"),
            ("http://x/%00", "target"),
            ("CONNECT http://x", "method"),
            ("http://x,y/", "host"),
            ("http://x/ header:Transfer_Encoding=chunked", "header-syntax"),
        ] {
            let answer = ask(question).unwrap();
            assert_eq!(
                (&answer["outcome"], &answer["reason"]),
                (&json!("refused"), &json!(reason)),
                "{question}"
            );
        }
    }

    #[test]
    fn the_listener_is_found_by_its_port() {
        let listener = |question: &str| match ask(question) {
            Ok(answer) => answer["steps"][0]["listener"].as_str().unwrap().to_owned(),
            Err(Refusal::Question(message)) => message,
            Err(refusal) => panic!("{refusal:?}"),
        };
        assert_eq!(listener("http://x/"), "web");
        assert_eq!(listener("http://x:81/"), "other");
        assert_eq!(listener("http://x/ listener=other"), "other");
        assert_eq!(listener("http://x:82/"), "no http listener has port 82; say listener= one of other, web");
        assert_eq!(
            listener("http://x/ listener=no"),
            "there is no http listener \"no\"; there are other, web"
        );
        let (_, text, steps) = said("OPTIONS http://x:81");
        assert_eq!(text, "no route takes it: pool p of the listener");
        assert_eq!(steps, ["path: routed as *, forwarded as *", "pool: pool p, 1 of 1 backends up"]);
    }

    #[test]
    fn keys_and_cookies_name_the_backend() {
        let text = r#"
            version = 1
            [listener.web]
            bind = ["[::1]:80"]
            protocol = "http"
            pool = "p"
            [pool.p]
            balance = "maglev"
            key = "header:X-User"
            sticky = { cookie = "lb" }
            backends = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
        "#;
        let config = parse("f", text).unwrap().config;
        let snapshot = Snapshot::build(&config, Generation(1), &mut BackendIds::new()).unwrap();
        let secret = snapshot.pools[0].sticky_secret.0;
        let view = View { config: Arc::new(config), snapshot: Arc::new(snapshot), ..fixture::view() };
        let last = |question: &str| {
            let answer = render(&view, &question.parse().unwrap()).unwrap();
            let steps = answer["steps"].as_array().unwrap();
            steps.last().unwrap()["text"].as_str().unwrap().to_owned()
        };
        let ann = last("http://x/ header:X-User=ann");
        assert!(ann.starts_with("header:x-user leads to 10.0.0."), "{ann}");
        assert_eq!(last("http://x/a header:X-User=ann from=192.0.2.1"), ann);
        assert_eq!(last("http://x/"), "by the client's address, which from= would say");
        assert!(last("http://x/ from=192.0.2.1").starts_with("address leads to 10.0.0."));
        let names = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
        let tokens = crate::balance::Sticky::new(secret, names.into_iter());
        let cookie = format!("lb={}", String::from_utf8_lossy(tokens.token(1)));
        let question = format!("http://x/ header:Cookie={cookie} header:X-User=ann");
        assert_eq!(last(&question), "cookie lb leads to 10.0.0.2:80");
        view.health.set(view.snapshot.pools[0].backends[1].id, false);
        assert!(!last(&question).contains("10.0.0.2"));
    }
}
