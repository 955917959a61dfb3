//! The OpenAPI file is what is generated, and what is generated is what the handlers do.

use std::{collections::BTreeSet, os::unix::net::UnixStream, path::Path};

use serde_json::{Value, json};

use super::{
    changes::Refusal,
    endpoints::{Gives, JSON, Operation, RESOURCES, Resource, TOML},
    fixture, openapi,
    tests::{Running, exchange, start},
};

/// With LB_REWRITE=1 the file is written instead.
#[test]
fn the_file_is_what_is_generated() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let generated = format!("{:#}\n", openapi::document());
    if std::env::var_os("LB_REWRITE").is_some_and(|said| said == "1") {
        std::fs::write(&path, &generated).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    let same = "docs/openapi.json is another one: run this test with LB_REWRITE=1";
    assert!(kept == generated, "{same}");
}

#[test]
fn every_reference_leads_somewhere_and_every_name_is_one() {
    let document = openapi::document();
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let named: Vec<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
        let parameters = item["parameters"].as_array().cloned().unwrap_or_default();
        let declared: Vec<&str> = parameters.iter().map(|of| of["name"].as_str().unwrap()).collect();
        assert_eq!(named, declared, "{path}");
        for operation in item.as_object().unwrap().values().filter(|of| of.is_object()) {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} twice");
        }
    }
}

fn collect<'d>(value: &'d Value, references: &mut Vec<&'d str>) {
    match value {
        Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| collect(value, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}

/// What is wrong with `value` by `schema`, of as much of JSON Schema as the document uses.
fn mistakes(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        return mistakes(document, &document.pointer(&reference[1..]).unwrap().clone(), value, at, found);
    }
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        kind => panic!("type {kind}"),
    };
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        kinds => kinds.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
    };
    if !kinds.is_empty() && !kinds.iter().any(|kind| is(kind)) {
        return found.push(format!("{at} is no {kinds:?}: {value}"));
    }
    if schema["enum"].as_array().is_some_and(|known| !known.contains(value)) {
        found.push(format!("{at} is none of {}: {value}", schema["enum"]));
    }
    if let Some(fields) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                found.push(format!("{at} has no {name}"));
            }
        }
        for (name, value) in fields {
            match &schema["properties"][name] {
                Value::Null if schema["additionalProperties"] == false => {
                    found.push(format!("{at} has {name}"));
                }
                Value::Null => {}
                schema => mistakes(document, schema, value, &format!("{at}.{name}"), found),
            }
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        mistakes(document, &schema["items"], item, &format!("{at}[{index}]"), found);
    }
}

/// Asks for an operation as a client that read the document would.
fn ask(running: &Running, operation: &Operation, resource: &Resource, query: &str) -> (u16, String, String) {
    let path = resource.path.replace("{what}", "pools").replace("{table}", "pool").replace("{name}", "app");
    let path = path.replace("{pool}", "app").replace("{address}", "127.0.0.1:9001").replace("{n}", "1");
    let body = match operation.takes.first() {
        None => String::new(),
        Some(&TOML) => "version = 1".to_owned(),
        Some(_) if resource.path.ends_with("/weight") => "{\"weight\":3}".to_owned(),
        Some(_) => "{}".to_owned(),
    };
    let content = match operation.takes.first() {
        None => String::new(),
        Some(kind) => format!("content-type: {kind}\r\ncontent-length: {}\r\n", body.len()),
    };
    let verb = operation.verb.name();
    let request = format!("{verb} {path}{query} HTTP/1.1\r\nhost: x\r\n{content}\r\n{body}");
    let answer = exchange(UnixStream::connect(&running.socket).unwrap(), &request);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap();
    (status, kind.to_owned(), body.to_owned())
}

/// The answer is one of those that the document has.
fn check(operation: &Operation, resource: &Resource, (status, kind, body): (u16, String, String)) {
    let document = openapi::document();
    let (verb, path) = (operation.verb.name(), resource.path);
    let described = &document["paths"][path][verb.to_lowercase()];
    let response = &described["responses"][status.to_string()];
    assert!(response.is_object(), "{verb} {path}: {status} is not described: {body}");
    let content = &response["content"][&kind];
    assert!(content.is_object(), "{verb} {path}: {status} {kind} is not described");
    if kind == JSON {
        let mut found = Vec::new();
        mistakes(&document, &content["schema"], &serde_json::from_str(&body).unwrap(), "body", &mut found);
        assert!(found.is_empty(), "{verb} {path} {status}: {found:?}: {body}");
    }
}

fn query_of(operation: &Operation, resource: &Resource) -> &'static str {
    match resource.path {
        "/v1/why" => "?flow=udp+1.1.1.1:1+-%3E+192.0.2.53:53",
        "/v1/apply" => "?path=/etc/lb/lb.toml&dry_run=0",
        _ if operation.is_change() => "?dry_run=1",
        _ => "",
    }
}

#[test]
fn handlers_do_what_the_document_says() {
    let (mut view, _wishes) = fixture::controlled(|wish| Ok(fixture::applied(wish)));
    view.generations = fixture::generations();
    view.overrides = [fixture::drained()].into();
    view.packets = None;
    let running = start("openapi", view);
    for resource in RESOURCES {
        for operation in resource.operations {
            let answer = ask(&running, operation, resource, query_of(operation, resource));
            // Without a packet path nothing is captured.
            let expected = if operation.gives == Gives::Stream { 422 } else { 200 };
            assert_eq!(answer.0, expected, "{} {}: {}", operation.verb.name(), resource.path, answer.2);
            check(operation, resource, answer);
        }
    }
}

#[test]
fn refusals_are_those_that_the_document_says() {
    let refusals: [fn() -> Refusal; 5] = [
        || {
            let problems = crate::config::parse("lb.toml", "version = 2\n[pool.a]\nbackend = 1").unwrap_err();
            Refusal::Invalid(problems)
        },
        || Refusal::NotFound { at: "pool.app".to_owned(), message: "no such pool".to_owned() },
        || Refusal::Lost { current: super::changes::Etag("now".into()) },
        || Refusal::Unappliable { at: "runtime.workers".to_owned(), message: "restart".to_owned() },
        || Refusal::NotReady("it ends".to_owned()),
    ];
    for (at, refusal) in refusals.into_iter().enumerate() {
        let (view, _wishes) = fixture::controlled(move |_| Err(refusal()));
        let running = start(&format!("openapi-refusal-{at}"), view);
        let all =
            RESOURCES.iter().flat_map(|resource| resource.operations.iter().map(move |of| (resource, of)));
        for (resource, operation) in all.filter(|(_, operation)| operation.is_change()) {
            // Whatever names nothing cannot be missing.
            if at == 1 && !resource.path.contains('{') {
                continue;
            }
            let answer = ask(&running, operation, resource, query_of(operation, resource));
            assert_eq!(answer.0, [400, 404, 409, 422, 503][at]);
            check(operation, resource, answer);
        }
    }
    let running = start("openapi-queries", fixture::view());
    for resource in RESOURCES {
        for operation in resource.operations.iter().filter(|operation| !operation.query.is_empty()) {
            check(operation, resource, ask(&running, operation, resource, "?no-such=parameter"));
        }
    }
}

#[test]
fn a_wrong_answer_would_be_seen() {
    let document = openapi::document();
    let schema = json!({ "$ref": "#/components/schemas/Applied" });
    let mut found = Vec::new();
    let wrong =
        json!({ "generation": "7", "took_ms": 1, "acknowledged": { "workers": 1 }, "changed": [1], "x": 0 });
    mistakes(&document, &schema, &wrong, "a", &mut found);
    for expected in [
        "a.generation is no",
        "a.acknowledged has no maps",
        "a.changed[0] is no",
        "a has x",
        "a has no dry_run",
    ] {
        assert!(found.iter().any(|mistake| mistake.starts_with(expected)), "{expected}: {found:?}");
    }
}
