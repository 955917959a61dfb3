//! From a request's head to its answer. Knows no socket.

use hyper::{HeaderMap, Method, Uri, header::HOST};
use serde_json::{Value, json};

use super::{
    metrics,
    show::{self, Readings, What},
    status,
    view::View,
};
use crate::metrics::encode;

/// Which door a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The unix socket: the whole API; file permissions say who.
    Unix,
    /// The TCP endpoint: read-only, shows no config, mistrusts names.
    Tcp,
}

/// An answer, ready to send.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Content type.
    pub content_type: &'static str,
    /// Body.
    pub body: String,
}

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Status,
    Show(What),
    Metrics,
    Healthz,
    Readyz,
}

impl Endpoint {
    fn find(door: Door, path: &str) -> Option<Self> {
        let endpoint = match path {
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Healthz,
            "/readyz" => Self::Readyz,
            "/v1/status" => Self::Status,
            path => Self::Show(path.strip_prefix("/v1/show/")?.parse().ok()?),
        };
        let shows_config = matches!(endpoint, Self::Status | Self::Show(_));
        (door == Door::Unix || !shows_config).then_some(endpoint)
    }
}

/// A request that may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted(Endpoint);

impl Accepted {
    /// Whether the answer wants a reading of the packet path.
    pub fn needs_packets(self) -> bool {
        use Endpoint::{Healthz, Readyz, Show};
        !matches!(self.0, Healthz | Readyz | Show(What::Config | What::Flows))
    }

    /// Whether it wants the flow records.
    pub fn needs_flows(self) -> bool {
        self.0 == Endpoint::Show(What::Flows)
    }
}

/// Whether this request is answered at all.
///
/// # Errors
/// The refusal to send: a foreign Host, an unknown path, another method than GET.
pub fn accept(door: Door, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Accepted, Answer> {
    if door == Door::Tcp {
        check_host(uri, headers)?;
    }
    let Some(endpoint) = Endpoint::find(door, uri.path()) else {
        return Err(error(404, "not-found", "no such resource", uri.path()));
    };
    if *method != Method::GET {
        return Err(error(405, "method-not-allowed", "this resource can only be read: use GET", uri.path()));
    }
    Ok(Accepted(endpoint))
}

/// The answer; `readings` hold what [`Accepted`] needs, as far as its owner answered.
pub fn answer(accepted: Accepted, view: &View, readings: Readings<'_>) -> Answer {
    let packets = readings.packets;
    match accepted.0 {
        Endpoint::Status => json_answer(200, &status::render(view, packets)),
        Endpoint::Show(what) => json_answer(200, &show::render(what, view, readings)),
        Endpoint::Metrics => {
            Answer { status: 200, content_type: encode::CONTENT_TYPE, body: metrics::render(view, packets) }
        }
        Endpoint::Healthz => text(200, "ok\n"),
        Endpoint::Readyz if view.is_draining() => text(503, "draining\n"),
        Endpoint::Readyz => text(200, "ready\n"),
    }
}

/// `{ "error": { "code", "message", "where" } }`.
pub fn error(status: u16, code: &str, message: &str, place: &str) -> Answer {
    json_answer(status, &json!({ "error": { "code": code, "message": message, "where": place } }))
}

/// A page of an attacker can make a browser ask us under a name that it points at our address; it cannot make it
/// ask under an address literal or `localhost` without being that origin (DNS rebinding).
fn check_host(uri: &Uri, headers: &HeaderMap) -> Result<(), Answer> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        _ => return Err(error(400, "host", "exactly one Host field is required", "host")),
    };
    let target = uri.authority().map(|authority| authority.as_str());
    if host.is_some_and(is_local_name) && target.is_none_or(is_local_name) {
        return Ok(());
    }
    Err(error(421, "host", "Host must be an IP address or localhost", "host"))
}

/// `address`, `address:port`, `[address]`, `[address]:port`, `localhost`, `localhost:port`.
fn is_local_name(host: &str) -> bool {
    use std::net::{Ipv4Addr, Ipv6Addr};
    let (name, port) = match host.rfind(':') {
        Some(colon) if !host.ends_with(']') => (&host[..colon], Some(&host[colon + 1..])),
        _ => (host, None),
    };
    let port_holds = port.is_none_or(|port| port.parse::<u16>().is_ok());
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    port_holds
        && match bracketed {
            Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
            None => name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok(),
        }
}

fn json_answer(status: u16, document: &Value) -> Answer {
    Answer { status, content_type: "application/json", body: format!("{document}\n") }
}

fn text(status: u16, body: &str) -> Answer {
    Answer { status, content_type: "text/plain; charset=utf-8", body: body.to_owned() }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;
    use crate::admin::fixture;

    fn ask(door: Door, method: Method, path: &str, hosts: &[&'static str]) -> Answer {
        let view = fixture::view();
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_static(host));
        }
        match accept(door, &method, &path.parse().unwrap(), &headers) {
            Ok(accepted) => answer(accepted, &view, Readings::default()),
            Err(refusal) => refusal,
        }
    }

    fn code(answer: &Answer) -> String {
        let document: Value = serde_json::from_str(&answer.body).unwrap();
        document["error"]["code"].as_str().unwrap().to_owned()
    }

    #[test]
    fn errors_have_one_shape() {
        let answer = ask(Door::Unix, Method::GET, "/v1/nothing", &[]);
        assert_eq!(answer.status, 404);
        let document: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(
            document,
            json!({ "error": { "code": "not-found", "message": "no such resource", "where": "/v1/nothing" } })
        );
        let answer = ask(Door::Unix, Method::POST, "/v1/status", &[]);
        assert_eq!((answer.status, &*code(&answer)), (405, "method-not-allowed"));
    }

    #[test]
    fn the_tcp_door_shows_no_config() {
        for path in ["/v1/status", "/v1/show/listeners", "/v1/show/config", "/v1/show/flows"] {
            assert_eq!(ask(Door::Tcp, Method::GET, path, &["127.0.0.1:9900"]).status, 404, "{path}");
        }
        for path in ["/metrics", "/healthz", "/readyz"] {
            assert_eq!(ask(Door::Tcp, Method::GET, path, &["127.0.0.1:9900"]).status, 200, "{path}");
        }
    }

    #[test]
    fn the_tcp_door_answers_to_addresses_only() {
        for host in
            ["127.0.0.1", "127.0.0.1:9900", "[::1]", "[::1]:9900", "localhost", "LocalHost:1", "10.1.2.3"]
        {
            assert_eq!(ask(Door::Tcp, Method::GET, "/metrics", &[host]).status, 200, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9900",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "::1",
            "[::1",
            "localhost:x",
            "",
            "[127.0.0.1]",
        ] {
            assert_eq!(ask(Door::Tcp, Method::GET, "/metrics", &[host]).status, 421, "{host}");
        }
        assert_eq!(ask(Door::Tcp, Method::GET, "/metrics", &[]).status, 400);
        assert_eq!(ask(Door::Tcp, Method::GET, "/metrics", &["127.0.0.1", "evil.example"]).status, 400);
        assert_eq!(ask(Door::Tcp, Method::GET, "http://evil.example/metrics", &["127.0.0.1"]).status, 421);
    }

    #[test]
    fn a_draining_daemon_is_alive_but_not_ready() {
        let view = fixture::view();
        view.draining.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(answer(Accepted(Endpoint::Healthz), &view, Readings::default()).status, 200);
        assert_eq!(answer(Accepted(Endpoint::Readyz), &view, Readings::default()).status, 503);
    }
}
