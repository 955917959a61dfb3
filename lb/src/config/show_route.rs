//! A [`Route`] as the JSON that means it.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    BODY_BYTES_ANY, BurstRate, Condition, Conditions, HeaderEdits, HostKind, MemoryLimit, Redirect, Respond,
    Rewrite, Route, RouteAction, RoutePolicy, Test,
    file::{show_duration, show_sample, show_size},
    show_key::put,
};

pub(super) fn route(route: &Route) -> Value {
    let mut table = json!({ "listener": route.listener });
    let hosts: Vec<String> = route.hosts.iter().map(ToString::to_string).collect();
    let key = match route.host_kind {
        HostKind::Authority => "host",
        HostKind::Sni => "sni",
    };
    put(&mut table, key, (!hosts.is_empty()).then_some(hosts));
    put(&mut table, "path", route.path.as_ref().map(ToString::to_string));
    route.conditions.show(&mut table);
    put(&mut table, "priority", (route.priority > 0).then_some(route.priority));
    match &route.action {
        RouteAction::Forward { pool, rewrite } => {
            table["pool"] = json!(pool);
            put(&mut table, "rewrite", rewrite.to_json());
        }
        RouteAction::Redirect(redirect) => table["redirect"] = redirect.to_json(),
        RouteAction::Respond(respond) => table["respond"] = respond.to_json(),
    }
    let edits: Map<String, Value> =
        [("request", &route.request_headers), ("response", &route.response_headers)]
            .into_iter()
            .filter(|(_, edits)| !edits.is_empty())
            .map(|(side, edits)| (side.to_owned(), edits.to_json()))
            .collect();
    put(&mut table, "set_headers", (!edits.is_empty()).then_some(edits));
    put(&mut table, "timeout", route.timeout.map(show_duration));
    put(&mut table, "deadline", route.deadline.map(show_duration));
    route.policy.show(&mut table);
    table
}

pub(super) fn show_body_bytes(bytes: u64) -> String {
    if bytes == BODY_BYTES_ANY { "none".to_owned() } else { show_size(bytes) }
}

pub(super) fn show_memory(memory: MemoryLimit) -> String {
    match memory {
        MemoryLimit::Auto => "auto".to_owned(),
        MemoryLimit::Unlimited => "none".to_owned(),
        MemoryLimit::Bytes(bytes) => show_size(bytes),
    }
}

pub(super) fn show_rate(rate: BurstRate) -> Value {
    json!({ "rate": rate.rate.to_string(), "burst": rate.burst })
}

impl RoutePolicy {
    /// Puts those keys that were written, as in the file.
    pub fn show(&self, table: &mut Value) {
        put(table, "idle", self.idle.map(show_duration));
        put(table, "upgrade", self.upgrade.as_deref());
        let retry = self.retry.as_ref().map(|retry| {
            let on: Vec<String> = retry.on.iter().map(ToString::to_string).collect();
            json!({ "on": on, "attempts": retry.attempts, "budget": show_sample(retry.budget_ppm) })
        });
        put(table, "retry", retry);
        put(table, "body_bytes", self.body_bytes.map(show_body_bytes));
        let rate = self.rate_limit.as_ref().map(|limit| {
            let mut rate = show_rate(limit.rate);
            rate["key"] = json!(limit.key.to_string());
            rate
        });
        put(table, "rate_limit", rate);
    }
}

impl Conditions {
    /// Puts those that there are under their keys in the file.
    pub fn show(&self, table: &mut Value) {
        put(table, "method", (!self.methods.is_empty()).then_some(&self.methods));
        for (key, conditions) in [("headers", &self.headers), ("query", &self.query)] {
            put(table, key, (!conditions.is_empty()).then(|| show_conditions(conditions)));
        }
    }
}

fn show_conditions(conditions: &[Condition]) -> Map<String, Value> {
    let show = |test: &Test| match test {
        Test::Exact(text) => json!(text),
        Test::Prefix(text) => json!({ "prefix": text }),
        Test::Pattern(pattern) => json!({ "regex": pattern.text() }),
        Test::Present => json!({ "present": true }),
        Test::Absent => json!({ "present": false }),
    };
    conditions.iter().map(|condition| (condition.name.to_string(), show(&condition.test))).collect()
}

impl Rewrite {
    /// As in the file; `None` where it changes nothing.
    pub fn to_json(&self) -> Option<Value> {
        let mut table = json!({});
        put(&mut table, "host", self.host.as_ref());
        put(&mut table, "path", self.path.as_ref().map(|path| &path.text));
        (table != json!({})).then_some(table)
    }
}

impl Redirect {
    /// As in the file.
    pub fn to_json(&self) -> Value {
        let mut table = json!({ "status": self.status });
        put(&mut table, "scheme", self.scheme);
        put(&mut table, "host", self.host.as_ref());
        put(&mut table, "port", self.port);
        put(&mut table, "path", self.path.as_ref().map(|path| &path.text));
        put(&mut table, "keep_query", (!self.keep_query).then_some(false));
        table
    }
}

impl Respond {
    /// As in the file.
    pub fn to_json(&self) -> Value {
        let mut table = json!({ "status": self.status });
        if !matches!(self.status, 204 | 205 | 304) {
            table["body"] = json!(self.body);
            table["content_type"] = json!(self.content_type);
        }
        put(&mut table, "headers", (!self.headers.is_empty()).then(|| lines(&self.headers)));
        table
    }
}

impl HeaderEdits {
    /// As in the file.
    pub fn to_json(&self) -> Value {
        let mut table = json!({});
        put(&mut table, "set", (!self.set.is_empty()).then(|| lines(&self.set)));
        put(&mut table, "add", (!self.add.is_empty()).then(|| lines(&self.add)));
        put(&mut table, "remove", (!self.remove.is_empty()).then_some(&self.remove));
        table
    }
}

fn lines(lines: &[(Arc<str>, Arc<str>)]) -> Map<String, Value> {
    lines.iter().map(|(name, value)| (name.to_string(), json!(value))).collect()
}
