//! From a request's head to its answer. Knows no socket.

use hyper::{HeaderMap, Method, Uri, header::HOST};

use super::{
    answer::{Answer, error, json_answer},
    capture::Wish,
    metrics,
    packets::Refusal,
    query::Query,
    show::{self, Readings, What},
    status,
    view::View,
    why,
};
use crate::{
    metrics::encode,
    model::{Question, RequestQuestion},
};

/// Which door a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The unix socket: the whole API; file permissions say who.
    Unix,
    /// The TCP endpoint: read-only, shows no config, mistrusts names.
    Tcp,
}

/// What a path names.
#[derive(Clone, Debug, PartialEq)]
enum Endpoint {
    Status,
    Show(What),
    Why(Box<Question>),
    WhyRequest(Box<RequestQuestion>),
    Capture(Box<Wish>),
    Metrics,
    Healthz,
    Readyz,
}

impl Endpoint {
    fn find(door: Door, uri: &Uri, view: &View) -> Result<Self, Answer> {
        let path = uri.path();
        let unknown = || error(404, "not-found", "no such resource", path);
        // All that show config, or packets.
        if door == Door::Tcp && path.starts_with("/v1/") {
            return Err(unknown());
        }
        Ok(match path {
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Healthz,
            "/readyz" => Self::Readyz,
            "/v1/status" => Self::Status,
            "/v1/why" => question(uri)?,
            "/v1/capture" => {
                let query = Query::parse(uri.query().unwrap_or_default())?;
                Self::Capture(Box::new(Wish::parse(&query, view)?))
            }
            path => {
                let what = path.strip_prefix("/v1/show/").and_then(|name| name.parse().ok());
                Self::Show(what.ok_or_else(unknown)?)
            }
        })
    }
}

/// About a packet or a request.
fn question(uri: &Uri) -> Result<Endpoint, Answer> {
    let query = Query::parse(uri.query().unwrap_or_default())?;
    query.only(&["flow", "request"])?;
    let refused = |key: &'static str| {
        move |wrong: crate::model::QuestionError| {
            error(400, key, &wrong.message, &format!("{key}, column {}", wrong.column))
        }
    };
    match (query.one("flow")?, query.one("request")?) {
        (Some(_), Some(_)) => {
            Err(error(400, "request", "ask about a flow or a request, not both", "request"))
        }
        (None, Some(request)) => {
            Ok(Endpoint::WhyRequest(Box::new(request.parse().map_err(refused("request"))?)))
        }
        (flow, None) => {
            Ok(Endpoint::Why(Box::new(flow.unwrap_or_default().parse().map_err(refused("flow"))?)))
        }
    }
}

/// A request that may be answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted(Endpoint);

impl Accepted {
    /// Whether the answer wants a reading of the packet path.
    pub fn needs_packets(&self) -> bool {
        use Endpoint::{Healthz, Readyz, Show, WhyRequest};
        !matches!(
            self.0,
            Healthz | Readyz | WhyRequest(_) | Show(What::Config | What::Flows) | Endpoint::Capture(_)
        )
    }

    /// Whether it wants the flow records.
    pub fn needs_flows(&self) -> bool {
        self.0 == Endpoint::Show(What::Flows)
    }

    /// The packet that is asked about.
    pub fn question(&self) -> Option<&Question> {
        match &self.0 {
            Endpoint::Why(question) => Some(question),
            _ => None,
        }
    }

    /// The capture that is asked for; then the answer is a stream, unless it is refused.
    pub fn wish(&self) -> Option<&Wish> {
        match &self.0 {
            Endpoint::Capture(wish) => Some(wish),
            _ => None,
        }
    }
}

/// Whether this request is answered at all.
///
/// # Errors
/// The refusal to send: a foreign Host, an unknown path, another method than GET.
pub fn accept(
    door: Door,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    view: &View,
) -> Result<Accepted, Answer> {
    if door == Door::Tcp {
        check_host(uri, headers)?;
    }
    let endpoint = Endpoint::find(door, uri, view)?;
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
        Endpoint::Why(question) => match readings.why {
            Ok(reading) => {
                let local = &crate::sys::interfaces::all_addresses().unwrap_or_default();
                json_answer(
                    200,
                    &why::render(view, why::Asked { question: &question, reading, packets, local }),
                )
            }
            Err(refusal) => refused(refusal, "flow"),
        },
        Endpoint::WhyRequest(question) => match why::request::render(view, &question) {
            Ok(document) => json_answer(200, &document),
            Err(refusal) => refused(&refusal, "request"),
        },
        // The server makes a stream of it; what is left is that there is no packet path.
        Endpoint::Capture(_) => error(422, "packet-path", "nothing of XDP runs here", "capture"),
        Endpoint::Metrics => {
            Answer { status: 200, content_type: encode::CONTENT_TYPE, body: metrics::render(view, packets) }
        }
        Endpoint::Healthz => text(200, "ok\n"),
        Endpoint::Readyz if view.is_draining() => text(503, "draining\n"),
        Endpoint::Readyz => text(200, "ready\n"),
    }
}

/// What the packet path would not do.
pub(super) fn refused(refusal: &Refusal, place: &str) -> Answer {
    match refusal {
        Refusal::Question(message) => error(400, place, message, place),
        Refusal::Busy(message) => error(409, "busy", message, place),
        Refusal::Failed(message) => error(503, "packet-path", message, place),
    }
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

fn text(status: u16, body: &str) -> Answer {
    Answer { status, content_type: "text/plain; charset=utf-8", body: body.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use hyper::header::HeaderValue;

    use super::*;
    use crate::admin::fixture;

    fn ask(door: Door, method: Method, path: &str, hosts: &[&'static str]) -> Answer {
        let view = fixture::view();
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_static(host));
        }
        match accept(door, &method, &path.parse().unwrap(), &headers, &view) {
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
        for path in
            ["/v1/status", "/v1/show/listeners", "/v1/show/config", "/v1/show/flows", "/v1/why?flow=x"]
        {
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
    fn a_question_that_cannot_be_meant_is_refused_with_its_place() {
        let refused = |query: &str| {
            let answer = ask(Door::Unix, Method::GET, &format!("/v1/why{query}"), &[]);
            let document: Value = serde_json::from_str(&answer.body).unwrap();
            (answer.status, document["error"]["where"].as_str().unwrap().to_owned())
        };
        assert_eq!(refused(""), (400, "flow, column 1".to_owned()));
        assert_eq!(refused("?flow=tcp+1.1.1.1:1+-%3E+2.2.2.2"), (400, "flow, column 18".to_owned()));
        assert_eq!(refused("?flow=%"), (400, "flow=%".to_owned()));
        assert_eq!(refused("?floe=x"), (400, "floe".to_owned()));
        assert_eq!(refused("?request=http://a+x"), (400, "request, column 10".to_owned()));
        assert_eq!(refused("?request=http://a:1/"), (400, "request".to_owned()));
        assert_eq!(refused("?request=http://a&flow=x"), (400, "request".to_owned()));
        let failed = Refusal::Failed("the kernel would not".to_owned());
        let view = fixture::view();
        let uri = "/v1/why?flow=udp+1.1.1.1:1+-%3E+2.2.2.2:2".parse().unwrap();
        let accepted = accept(Door::Unix, &Method::GET, &uri, &HeaderMap::new(), &view).unwrap();
        let answer = answer(accepted, &view, Readings { why: Err(&failed), ..Readings::default() });
        assert_eq!((answer.status, &*code(&answer)), (503, "packet-path"));
    }

    #[test]
    fn a_draining_daemon_is_alive_but_not_ready() {
        let view = fixture::view();
        view.draining.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(answer(Accepted(Endpoint::Healthz), &view, Readings::default()).status, 200);
        assert_eq!(answer(Accepted(Endpoint::Readyz), &view, Readings::default()).status, 503);
    }
}
