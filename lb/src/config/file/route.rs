//! `[route.NAME]`.

use std::{ops::Range, sync::Arc, time::Duration};

use super::{
    field, pattern,
    pool::reference,
    process::TIMEOUTS,
    reader::{At, Fault, Table, Value},
    route_policy, schema, shape,
};
use crate::config::{
    Condition, Conditions, HeaderEdits, HostKind, HostPattern, PathPattern, Pattern, Redirect, Respond,
    Rewrite, Route, RouteAction, RoutePolicy, Test,
};

/// Status of a redirect that names none: found there for now, as most proxies have it.
const REDIRECT_STATUS: u16 = 302;
const BODY_BYTES_MAX: usize = 64 << 10;

/// What was read of a route.
pub(super) struct RouteDraft {
    pub(super) name: Arc<str>,
    /// Of its header.
    pub(super) span: Range<usize>,
    pub(super) listener: Option<At<Arc<str>>>,
    /// Of `host`, or of `sni`.
    pub(super) hosts: Vec<At<HostPattern>>,
    /// Where `sni` stands.
    pub(super) sni: Option<At<()>>,
    pub(super) path: Option<At<PathPattern>>,
    pub(super) conditions: Arc<Conditions>,
    pub(super) priority: u16,
    pub(super) pool: Option<At<Arc<str>>>,
    /// Whether host and path are all that was written, so that routes can be compared.
    pub(super) is_comparable: bool,
    action: Option<RouteAction<()>>,
    request_headers: HeaderEdits,
    response_headers: HeaderEdits,
    timeout: Option<Duration>,
    deadline: Option<Duration>,
    pub(super) policy: RoutePolicy,
}

impl RouteDraft {
    pub(super) fn read(name: Arc<str>, table: &Table<'_>) -> Self {
        let rule = "must be an array of hosts, such as [\"api.example.com\", \"*.example.org\"]";
        let sni = table.value("sni");
        let items = sni.clone().or_else(|| table.value("host")).map(|value| value.items(rule));
        let is_host_read = !matches!(items, Some(None));
        let items = items.flatten().unwrap_or_default();
        let parse = if sni.is_some() { pattern::server_name } else { pattern::host };
        let hosts: Vec<_> =
            items.iter().filter_map(|item| item.parsed("a host is a string", parse)).collect();
        if sni.is_some() {
            only_by_name(table);
        }
        let path = table.value("path").map(|value| value.parsed("a path is a string", pattern::path));
        let is_path_read = !matches!(path, Some(None));
        let path = path.flatten();
        let duration = |key| Some(table.value(key)?.duration(&TIMEOUTS)?.value);
        let edits = table.table("set_headers", &schema::SET_HEADERS);
        let edits = |side| {
            let table = edits.as_ref()?.table(side, &schema::HEADER_EDITS)?;
            Some(header_edits(&table))
        };
        let priority = table.value("priority").and_then(|value| value.integer(0..1 << 16));
        let (pool, action) = action(table, path.as_ref().map(|at| &at.value), is_path_read);
        Self {
            name,
            span: table.span.clone(),
            listener: reference(table.required("listener", "must be the name of a listener"), "listener"),
            is_comparable: is_host_read && hosts.len() == items.len() && is_path_read,
            hosts,
            sni: sni.map(|value| value.at(())),
            path,
            conditions: Arc::new(conditions(table)),
            priority: priority.map_or(0, |at| at.value as u16),
            pool,
            action,
            request_headers: edits("request").unwrap_or_default(),
            response_headers: edits("response").unwrap_or_default(),
            timeout: duration("timeout"),
            deadline: duration("deadline"),
            policy: route_policy::read(table),
        }
    }

    /// `None` only where a problem was reported.
    pub(super) fn build(self) -> Option<Route> {
        let action = match self.action? {
            RouteAction::Forward { rewrite, .. } => RouteAction::Forward { pool: self.pool?.value, rewrite },
            RouteAction::Redirect(redirect) => RouteAction::Redirect(redirect),
            RouteAction::Respond(respond) => RouteAction::Respond(respond),
        };
        Some(Route {
            listener: self.listener?.value,
            hosts: self.hosts.into_iter().map(|at| at.value).collect(),
            host_kind: if self.sni.is_some() { HostKind::Sni } else { HostKind::Authority },
            path: self.path.map(|at| at.value),
            conditions: self.conditions,
            priority: self.priority,
            action,
            request_headers: Arc::new(self.request_headers),
            response_headers: Arc::new(self.response_headers),
            timeout: self.timeout,
            deadline: self.deadline,
            policy: Arc::new(self.policy),
        })
    }
}

/// A relay knows the name and nothing of what is said behind it.
fn only_by_name(table: &Table<'_>) {
    let of_requests =
        schema::ROUTE.supported_names().filter(|key| !matches!(*key, "listener" | "sni" | "pool"));
    for value in of_requests.filter_map(|key| table.value(key)) {
        value.fault(Fault::new("has no meaning with `sni`: what is encrypted is not looked at"));
    }
}

/// `pool`, `redirect` or `respond`, and what goes with it; the pool apart, as others look for it.
fn action(
    table: &Table<'_>,
    path: Option<&PathPattern>,
    is_path_read: bool,
) -> (Option<At<Arc<str>>>, Option<RouteAction<()>>) {
    let answers: Vec<_> =
        ["redirect", "respond"].into_iter().filter_map(|key| Some((key, table.value(key)?))).collect();
    let rewrite = table.value("rewrite");
    let Some((kind, answer)) = answers.first() else {
        let rule = "must be the name of a pool; or `redirect` or `respond` stands instead";
        let pool = reference(table.required("pool", rule), "pool");
        let rewrite = rewrite.map(|value| read_rewrite(&value, path, is_path_read)).unwrap_or_default();
        return (pool, Some(RouteAction::Forward { pool: (), rewrite }));
    };
    let edits = table.value("set_headers").filter(Value::is_table);
    let request = edits.and_then(|value| value.any_table()).and_then(|edits| edits.value("request"));
    let idle = ["timeout", "deadline", "idle", "upgrade", "retry", "body_bytes"]
        .into_iter()
        .filter_map(|key| table.value(key));
    for value in rewrite.into_iter().chain(request).chain(idle) {
        value.fault(Fault::new(format!("has no meaning with `{kind}`: no backend is asked")));
    }
    for value in table.value("pool").iter().chain(answers.iter().skip(1).map(|(_, value)| value)) {
        value.fault(Fault::new(format!(
            "stands beside `{kind}`; a route has one of `pool`, `redirect`, `respond`"
        )));
    }
    let action = match *kind {
        "redirect" => read_redirect(answer, path, is_path_read).map(|it| RouteAction::Redirect(Arc::new(it))),
        _ => read_respond(answer).map(|it| RouteAction::Respond(Arc::new(it))),
    };
    (None, action)
}

fn new_path(
    table: &Table<'_>,
    from: Option<&PathPattern>,
    is_read: bool,
) -> Option<Arc<crate::config::NewPath>> {
    // A path that could not be read has its own problem; whether captures fit it cannot be said.
    let value = table.value("path").filter(|_| is_read)?;
    let path = value.parsed("a path is a string", |text| pattern::new_path(text, from))?;
    Some(Arc::new(path.value))
}

fn read_rewrite(value: &Value<'_>, from: Option<&PathPattern>, is_read: bool) -> Rewrite {
    let Some(table) = value.table(&schema::REWRITE) else { return Rewrite::default() };
    if table.is_empty() {
        value.fault(Fault::new("needs `path`, `host` or both"));
    }
    let host = table.value("host").and_then(|value| value.parsed("a host is a string", pattern::authority));
    Rewrite { host: host.map(|at| at.value), path: new_path(&table, from, is_read) }
}

fn read_redirect(value: &Value<'_>, from: Option<&PathPattern>, is_read: bool) -> Option<Redirect> {
    let table = value.table(&schema::REDIRECT)?;
    let status = match table.value("status") {
        None => REDIRECT_STATUS,
        Some(value) => {
            let status = value.integer(300..309)?.value as u16;
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                value.fault(Fault::new("must be 301, 302, 303, 307 or 308"));
            }
            status
        }
    };
    if !["scheme", "host", "port", "path"].into_iter().any(|key| table.value(key).is_some()) {
        value.fault(Fault::new("leads back to itself: needs `scheme`, `host`, `port` or `path`"));
    }
    let host = table.value("host").and_then(|value| value.parsed("a host is a string", pattern::one_host));
    Some(Redirect {
        status,
        scheme: table.value("scheme").and_then(|value| value.choice(&schema::SCHEMES)).map(|at| at.value),
        host: host.map(|at| at.value),
        port: table.value("port").and_then(|value| value.integer(1..65_536)).map(|at| at.value as u16),
        path: new_path(&table, from, is_read),
        keep_query: table.value("keep_query").and_then(|value| value.boolean()).unwrap_or(true),
    })
}

fn read_respond(value: &Value<'_>) -> Option<Respond> {
    let table = value.table(&schema::RESPOND)?;
    let status =
        table.value("status").map_or(Some(200), |value| Some(value.integer(200..600)?.value as u16))?;
    let body = table.value("body");
    let content_type = table.value("content_type");
    if matches!(status, 204 | 205 | 304) {
        for value in body.iter().chain(&content_type) {
            value.fault(Fault::new(format!("an answer with status {status} has no body")));
        }
    }
    let body = body.and_then(|value| {
        value.parsed("a body is a string", |text| match text.len() {
            0..=BODY_BYTES_MAX => Ok(Arc::from(text)),
            _ => Err(Fault::new(format!("must be at most {} KiB", BODY_BYTES_MAX >> 10))),
        })
    });
    let content_type =
        content_type.and_then(|value| value.parsed("a content type is a string", field::value));
    let headers = table.value("headers");
    let lines = headers.as_ref().map(field::lines).unwrap_or_default();
    if let (Some(value), true) =
        (&headers, lines.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")))
    {
        value.fault(Fault::new("Content-Type is given by `content_type`"));
    }
    Some(Respond {
        status,
        body: body.map_or_else(|| "".into(), |at| at.value),
        content_type: content_type.map_or_else(|| "text/plain; charset=utf-8".into(), |at| at.value),
        headers: lines,
    })
}

fn header_edits(table: &Table<'_>) -> HeaderEdits {
    let lines = |key| table.value(key).as_ref().map(field::lines).unwrap_or_default();
    let rule = "must be an array of names, such as [\"Server\"]";
    let remove = table.value("remove").and_then(|value| value.items(rule)).unwrap_or_default();
    let remove = remove.iter().filter_map(|item| item.parsed("a name is a string", field::edited));
    let (set, add) = (lines("set"), lines("add"));
    let remove: Vec<_> = remove.collect();
    for name in &remove {
        if set.iter().any(|(known, _): &(Arc<str>, _)| known.eq_ignore_ascii_case(&name.value)) {
            table.value("remove").iter().for_each(|value| {
                value.fault(Fault::new(format!("{} stands in `set` too, which replaces it", name.value)));
            });
        }
    }
    HeaderEdits { set, add, remove: remove.into_iter().map(|at| at.value).collect() }
}

fn conditions(table: &Table<'_>) -> Conditions {
    let rule = "must be an array of methods, such as [\"GET\", \"HEAD\"]";
    let mut methods: Vec<Arc<str>> = Vec::new();
    for item in table.value("method").and_then(|value| value.items(rule)).unwrap_or_default() {
        let Some(method) = item.parsed("a method is a string", method) else { continue };
        match methods.contains(&method.value) {
            true => item.fault(Fault::new("this method is listed already")),
            false => methods.push(method.value),
        }
    }
    methods.sort();
    let fields = |key, keys, parse: fn(&str) -> Result<Arc<str>, Fault>| {
        let Some(table) = table.value(key).and_then(|value| value.any_table()) else { return Vec::new() };
        let entries = field::named(&table, parse).into_iter();
        let mut conditions: Vec<_> =
            entries.filter_map(|(name, value)| Some(Condition { name, test: test(&value, keys)? })).collect();
        conditions.sort_by(|a, b| a.name.cmp(&b.name));
        conditions
    };
    Conditions {
        methods,
        headers: fields("headers", &schema::HEADER_TEST, field::matched),
        query: fields("query", &schema::QUERY_TEST, |text| match text.is_empty() {
            true => Err(Fault::new("a parameter needs a name")),
            false => Ok(text.into()),
        }),
    }
}

/// Methods are case-sensitive (RFC 9110, 9.1).
fn method(text: &str) -> Result<Arc<str>, Fault> {
    match text {
        "CONNECT" => Err(Fault::new("is refused always: tunnels for clients are not supported")),
        _ if !(1..=32).contains(&text.len())
            || !text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-') =>
        {
            Err(Fault::new("must be a method, such as \"GET\""))
        }
        _ if text.bytes().any(|byte| byte.is_ascii_lowercase()) => {
            Err(Fault::new("methods are upper case").suggest(Some(text.to_ascii_uppercase())))
        }
        _ => Ok(text.into()),
    }
}

/// `"value"`, or a table with one kind of test.
fn test(value: &Value<'_>, keys: &'static shape::Keys) -> Option<Test> {
    let exact = |value: &Value<'_>| {
        value.parsed("must be a string", |text| Ok(Test::Exact(text.into()))).map(|at| at.value)
    };
    if !value.is_table() {
        return exact(value);
    }
    let table = value.table(keys)?;
    let kinds: Vec<&str> = keys.names().filter(|kind| table.value(kind).is_some()).collect();
    let [kind] = kinds[..] else {
        // An unknown kind has its own problem.
        if !kinds.is_empty() || table.is_empty() {
            let names: Vec<_> = keys.names().map(|name| format!("`{name}`")).collect();
            value.fault(Fault::new(format!("must be a string or a table with one of {}", names.join(", "))));
        }
        return None;
    };
    let value = table.value(kind)?;
    Some(match kind {
        "exact" => exact(&value)?,
        "prefix" => value.parsed("must be a string", |text| Ok(Test::Prefix(text.into())))?.value,
        "regex" => {
            let compiled = |text: &str| Pattern::new(text).map(Test::Pattern).map_err(Fault::new);
            value.parsed("must be a string", compiled)?.value
        }
        _ if value.boolean()? => Test::Present,
        _ => Test::Absent,
    })
}
