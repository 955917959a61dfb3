//! From a request's head to what is asked, and to the answer of what only reads. Knows no socket.

use hyper::{HeaderMap, Method, Uri, header::HOST};

use super::{
    answer::{Answer, TEXT, error, json_answer},
    capture::Wish,
    change::Asked,
    endpoints::{self, Act, Resource},
    generation_list, metrics, openapi,
    packets::Refusal,
    query::Query,
    show::{self, Readings, What},
    status,
    view::View,
    why,
};
use crate::{
    metrics::encode,
    model::{Generation, Question, RequestQuestion},
};

/// Which door a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The unix socket: the whole API; file permissions say who.
    Unix,
    /// The TCP endpoint: read-only, shows no config, mistrusts names.
    Tcp,
}

/// What is asked by a request that is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Accepted {
    /// Something is to be shown.
    Read(Read),
    /// Something is to be changed.
    Change(Box<Asked>),
}

/// Something that is to be shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Read(Endpoint);

/// What a path names.
#[derive(Clone, Debug, PartialEq)]
enum Endpoint {
    Status,
    Show(What),
    Config,
    Entry(String, String),
    Generations,
    Generation(Generation),
    Openapi,
    Why(Box<Question>),
    WhyRequest(Box<RequestQuestion>),
    Capture(Box<Wish>),
    Metrics,
    Healthz,
    Readyz(Door),
}

impl Endpoint {
    fn of(act: Act, door: Door, caught: Vec<String>, uri: &Uri, view: &View) -> Result<Self, Answer> {
        let unknown = || endpoints::unknown(uri.path());
        let mut caught = caught.into_iter();
        let mut next = || caught.next().ok_or_else(unknown);
        Ok(match act {
            Act::Metrics => Self::Metrics,
            Act::Healthz => Self::Healthz,
            Act::Readyz => Self::Readyz(door),
            Act::Status => Self::Status,
            Act::Show => Self::Show(next()?.parse().map_err(|()| unknown())?),
            Act::Why => question(uri)?,
            Act::Capture => {
                let query = Query::parse(uri.query().unwrap_or_default())?;
                Self::Capture(Box::new(Wish::parse(&query, view)?))
            }
            Act::Config => Self::Config,
            Act::Entry => Self::Entry(next()?, next()?),
            Act::Generations => Self::Generations,
            Act::Openapi => Self::Openapi,
            Act::Generation => Self::Generation(generation(&next()?)?),
            // Changes, which are no endpoints to read.
            _ => return Err(unknown()),
        })
    }
}

/// The number of a generation.
///
/// # Errors
/// 404: no number, so no generation.
pub(super) fn generation(text: &str) -> Result<Generation, Answer> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number).map(Generation);
    number.ok_or_else(|| error(404, "not-found", "no such generation", text))
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

impl Read {
    /// Whether the answer wants a reading of the packet path.
    pub fn needs_packets(&self) -> bool {
        use Endpoint::{Metrics, Show, Status, Why};
        match &self.0 {
            Status | Metrics | Why(_) => true,
            Show(what) => {
                !matches!(what, What::Config | What::Flows | What::Generations | What::Certificates)
            }
            _ => false,
        }
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

    /// The generation that is asked for; its config is read elsewhere, by [`stored`].
    pub fn generation(&self) -> Option<Generation> {
        match self.0 {
            Endpoint::Generation(generation) => Some(generation),
            _ => None,
        }
    }
}

/// Whether this request is answered at all.
///
/// # Errors
/// The refusal to send: a foreign Host, an unknown path, another method than the path has, a change by the TCP
/// endpoint, or one that cannot be meant.
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
    let path = uri.path();
    // All that show config, or packets, or change anything.
    if door == Door::Tcp && path.starts_with("/v1/") {
        return Err(match *method {
            Method::GET | Method::HEAD => endpoints::unknown(path),
            _ => error(403, "read-only", "nothing is changed by this endpoint: use the unix socket", path),
        });
    }
    let (resource, caught) = Resource::find(path)?;
    let operation = resource.operation(method, path)?;
    if operation.is_change() {
        return Ok(Accepted::Change(Box::new(Asked::read(operation, caught, uri, headers, view)?)));
    }
    Ok(Accepted::Read(Read(Endpoint::of(operation.act, door, caught, uri, view)?)))
}

/// The answer to [`Read::generation`].
pub(super) async fn stored(generation: Generation, view: &View) -> Answer {
    match generation_list::document(view, generation).await {
        Ok(Some(document)) => json_answer(200, &document),
        Ok(None) => error(404, "not-found", "no such generation is kept", &generation.to_string()),
        Err(message) => error(503, "generations", &message, &generation.to_string()),
    }
}

/// The answer; `readings` hold what [`Read`] needs, as far as its owner answered.
pub fn answer(read: Read, view: &View, readings: Readings<'_>) -> Answer {
    let packets = readings.packets;
    match read.0 {
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
        Endpoint::WhyRequest(question) => match why::route(view, &question) {
            Ok(document) => json_answer(200, &document),
            Err(refusal) => refused(&refusal, "request"),
        },
        // The server makes a stream of it; what is left is that there is no packet path.
        Endpoint::Capture(_) => error(422, "packet-path", "nothing of XDP runs here", "capture"),
        Endpoint::Metrics => {
            let body = metrics::render(view, packets);
            Answer { status: 200, content_type: encode::CONTENT_TYPE, body, fields: Vec::new() }
        }
        Endpoint::Healthz => text(200, "ok\n"),
        Endpoint::Readyz(_) if view.is_draining() => text(503, "draining\n"),
        Endpoint::Readyz(door) => match (&view.degraded, door) {
            (None, _) => text(200, "ready\n"),
            // What is wrong may quote the config.
            (Some(_), Door::Tcp) => text(200, "ready, but degraded: lb status says why\n"),
            (Some(why), Door::Unix) => text(200, &format!("ready, but degraded: {why}\n")),
        },
        Endpoint::Config => json_answer(200, &view.config.to_json()).with("etag", &view.etag),
        Endpoint::Entry(table, name) => match endpoints::TABLES.contains(&&*table) {
            true => match view.config.entry_to_json(&table, &name) {
                Some(entry) => json_answer(200, &entry).with("etag", &view.etag),
                None => error(404, "not-found", &format!("no {table} {name:?}"), &format!("{table}.{name}")),
            },
            false => error(404, "not-found", &format!("no entries of {table:?}"), &table),
        },
        Endpoint::Generations => {
            json_answer(200, &show::render(What::Generations, view, Readings::default()))
        }
        Endpoint::Openapi => json_answer(200, &openapi::document()),
        // The server reads it; what is left is that nobody did.
        Endpoint::Generation(generation) => {
            error(404, "not-found", "no such generation is kept", &generation.to_string())
        }
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
    Answer { status, content_type: TEXT, body: body.to_owned(), fields: Vec::new() }
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
            Ok(Accepted::Read(read)) => answer(read, &view, Readings::default()),
            Ok(Accepted::Change(asked)) => panic!("{asked:?}"),
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
        let Accepted::Read(read) = accepted else { panic!("{accepted:?}") };
        let answer = answer(read, &view, Readings { why: Err(&failed), ..Readings::default() });
        assert_eq!((answer.status, &*code(&answer)), (503, "packet-path"));
    }

    #[test]
    fn a_draining_daemon_is_alive_but_not_ready() {
        let view = fixture::view();
        view.draining.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(answer(Read(Endpoint::Healthz), &view, Readings::default()).status, 200);
        assert_eq!(answer(Read(Endpoint::Readyz(Door::Unix)), &view, Readings::default()).status, 503);
    }

    #[test]
    fn a_degraded_daemon_is_ready_and_says_why_where_config_may_be_shown() {
        let view = View { degraded: Some("lb.toml:3:1: secret words".to_owned()), ..fixture::view() };
        let ready = |door| answer(Read(Endpoint::Readyz(door)), &view, Readings::default());
        let (unix, tcp) = (ready(Door::Unix), ready(Door::Tcp));
        assert_eq!((unix.status, &*unix.body), (200, "ready, but degraded: lb.toml:3:1: secret words\n"));
        assert_eq!((tcp.status, &*tcp.body), (200, "ready, but degraded: lb status says why\n"));
    }

    #[test]
    fn the_tcp_door_changes_nothing() {
        for (method, path) in [
            (Method::PUT, "/v1/config"),
            (Method::PATCH, "/v1/config/pool/app"),
            (Method::DELETE, "/v1/nothing"),
            (Method::POST, "/v1/backends/app/127.0.0.1:9001/drain"),
            (Method::OPTIONS, "/v1/config"),
        ] {
            let refused = ask(Door::Tcp, method, path, &["127.0.0.1:9900"]);
            assert_eq!((refused.status, &*code(&refused)), (403, "read-only"), "{path}");
        }
        let refused = ask(Door::Tcp, Method::POST, "/metrics", &["127.0.0.1:9900"]);
        assert_eq!((refused.status, &*refused.fields[0].1), (405, "GET, HEAD"));
        assert_eq!(ask(Door::Tcp, Method::PUT, "/v1/config", &["evil.example"]).status, 421);
        assert_eq!(ask(Door::Tcp, Method::HEAD, "/v1/config", &["127.0.0.1"]).status, 404);
        assert_eq!(ask(Door::Tcp, Method::HEAD, "/metrics", &["127.0.0.1"]).status, 200);
    }

    #[test]
    fn the_config_is_read_with_its_etag_whole_and_by_entry() {
        let view = fixture::view();
        let etag = vec![("etag", view.etag.to_string())];
        let whole = ask(Door::Unix, Method::GET, "/v1/config", &[]);
        assert_eq!((whole.status, &whole.fields), (200, &etag));
        let document: Value = serde_json::from_str(&whole.body).unwrap();
        assert_eq!(document, view.config.to_json());
        assert_eq!(whole.body.trim_end(), document.to_string(), "canonical: keys in order, no spaces");
        assert_eq!(view.etag, crate::admin::changes::Etag::of(&document));
        let entry = ask(Door::Unix, Method::GET, "/v1/config/pool/app", &[]);
        assert_eq!((entry.status, &entry.fields), (200, &etag));
        assert_eq!(serde_json::from_str::<Value>(&entry.body).unwrap(), document["pool"]["app"]);
        for path in ["/v1/config/pool/nope", "/v1/config/tls/app", "/v1/config/limits/rate", "/v1/config/x/y"]
        {
            let refused = ask(Door::Unix, Method::GET, path, &[]);
            assert_eq!((refused.status, &*code(&refused)), (404, "not-found"), "{path}");
        }
    }
}
