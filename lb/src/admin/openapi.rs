//! The API as OpenAPI 3.1, made of the table of [endpoints](super::endpoints); kept as `lb/docs/openapi.json`.

use serde_json::{Map, Value, json};

use super::{
    endpoints::{Gives, JSON, MERGE_PATCH, Operation, RESOURCES, Resource, TABLES, TOML},
    show::What,
};

/// The whole document.
pub(super) fn document() -> Value {
    let paths: Map<String, Value> = RESOURCES.iter().map(|of| (of.path.to_owned(), path_item(of))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "lb admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Over the unix socket of `[admin] socket`. The TCP endpoint of `[admin] http` has only \
                /metrics, /healthz and /readyz: it shows no config (404), changes nothing (403) and answers to \
                addresses and localhost alone (421). A connection carries one request.",
        },
        "servers": [{ "url": "http://localhost" }],
        "paths": paths,
        "components": { "schemas": schemas() },
    })
}

fn path_item(resource: &Resource) -> Value {
    let mut item = Map::new();
    let parameters: Vec<Value> = resource.path.split('/').filter_map(path_parameter).collect();
    if !parameters.is_empty() {
        item.insert("parameters".to_owned(), json!(parameters));
    }
    for operation in resource.operations {
        item.insert(operation.verb.name().to_lowercase(), described(operation, resource));
    }
    Value::Object(item)
}

/// `{name}`; `None`: a segment that is itself.
fn path_parameter(segment: &str) -> Option<Value> {
    let name = segment.strip_prefix('{')?.strip_suffix('}')?;
    let what = What::ALL.map(|(name, _)| name);
    let (schema, description) = match name {
        "table" => (json!({ "type": "string", "enum": TABLES }), "Part of the config"),
        "what" => (json!({ "type": "string", "enum": what }), "Which list"),
        "n" => (json!({ "type": "integer", "minimum": 0 }), "Number of a generation"),
        "address" => {
            (json!({ "type": "string" }), "A backend, by its address in the config, percent-encoded")
        }
        "pool" => (json!({ "type": "string" }), "Name of the pool"),
        _ => (json!({ "type": "string" }), "Name of the entry"),
    };
    Some(
        json!({ "name": name, "in": "path", "required": true, "description": description, "schema": schema }),
    )
}

fn described(operation: &Operation, resource: &Resource) -> Value {
    let mut parameters: Vec<Value> = operation.query.iter().map(query_parameter).collect();
    if operation.is_change() {
        parameters.push(json!({
            "name": "If-Match", "in": "header", "schema": { "type": "string" },
            "description": "The config's ETag must be one of these, or with * there must be one (RFC 9110, 13.1.1)",
        }));
    }
    let mut described = json!({
        "operationId": operation_id(operation),
        "summary": operation.summary,
        "responses": responses(operation, resource),
    });
    if !parameters.is_empty() {
        described["parameters"] = json!(parameters);
    }
    if !operation.takes.is_empty() {
        let content: Map<String, Value> = operation
            .takes
            .iter()
            .map(|kind| ((*kind).to_owned(), json!({ "schema": body_schema(kind, operation) })))
            .collect();
        described["requestBody"] = json!({ "required": true, "content": content });
    }
    described
}

/// `putConfig` of `PutConfig`.
fn operation_id(operation: &Operation) -> String {
    let name = format!("{:?}", operation.act);
    let (first, rest) = name.split_at(1);
    first.to_lowercase() + rest
}

fn query_parameter((name, description): &(&str, &str)) -> Value {
    let schema = match *name {
        "dry_run" => json!({ "type": "string", "enum": ["1", "0", "true", "false"] }),
        "sample" | "snap" | "count" | "duration" | "rate" => json!({ "type": "integer", "minimum": 1 }),
        "flow" | "request" => json!({ "type": "string", "minLength": 1 }),
        "payload" => json!({ "type": "string", "enum": ["yes", "no"] }),
        _ => json!({ "type": "string" }),
    };
    let is_required = *name == "path";
    json!({ "name": name, "in": "query", "required": is_required, "description": description, "schema": schema })
}

fn body_schema(kind: &str, operation: &Operation) -> Value {
    use super::endpoints::Act::{PatchConfig, PatchEntry, PutConfig, Weight};
    match (kind, operation.act) {
        (TOML, _) => json!({ "type": "string", "description": "The config file, UTF-8" }),
        (MERGE_PATCH, _) | (JSON, PatchConfig | PatchEntry) => reference("Patch"),
        (_, PutConfig) => reference("Config"),
        (_, Weight) => reference("Weight"),
        _ => reference("Entry"),
    }
}

fn responses(operation: &Operation, resource: &Resource) -> Value {
    let content = match operation.gives {
        Gives::Text(kind) => json!({ kind: { "schema": { "type": "string" } } }),
        Gives::Stream => json!({ super::capture::CONTENT_TYPE: {} }),
        Gives::Json(schema) | Gives::Tagged(schema) => json!({ JSON: { "schema": reference(schema) } }),
    };
    let mut done = json!({ "description": "Done", "content": content });
    if let Gives::Tagged(_) = operation.gives {
        done["headers"] =
            json!({ "ETag": { "description": "Of the config", "schema": { "type": "string" } } });
    }
    let mut responses = Map::from_iter([("200".to_owned(), done)]);
    for status in refusals(operation, resource) {
        let content = match operation.gives {
            Gives::Text(kind) => json!({ kind: { "schema": { "type": "string" } } }),
            _ => json!({ JSON: { "schema": reference("Error") } }),
        };
        let refusal = json!({ "description": meaning(status), "content": content });
        responses.insert(status.to_string(), refusal);
    }
    Value::Object(responses)
}

/// Every status but 200 that an operation may end with.
pub(super) fn refusals(operation: &Operation, resource: &Resource) -> Vec<u16> {
    let mut statuses = operation.refusals.to_vec();
    if resource.path.contains('{') {
        statuses.extend([400, 404]);
    }
    if !operation.takes.is_empty() {
        statuses.extend([408, 411, 413, 415]);
    }
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

const fn meaning(status: u16) -> &'static str {
    match status {
        400 => "It cannot be meant, or is no valid config",
        404 => "No such entry, backend, generation or list",
        408 => "The body did not come in time",
        409 => "Lost a race: the config is not the one of If-Match; or busy",
        411 => "The body has no length",
        413 => "The body is too large",
        415 => "The body is of another type than can be read",
        422 => "Valid, but it cannot be had here, or not while running",
        503 => "Not ready: it starts, ends or is stuck",
        _ => "Refused",
    }
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

/// An object that has all of these, and nothing else.
fn closed(properties: Value) -> Value {
    let required: Vec<&String> = properties.as_object().map(|of| of.keys().collect()).unwrap_or_default();
    json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false })
}

/// An object that has all of these, and more.
fn open(properties: Value) -> Value {
    let mut schema = closed(properties);
    schema["additionalProperties"] = json!(true);
    schema
}

fn schemas() -> Value {
    let (text, count) = (json!({ "type": "string" }), json!({ "type": "integer", "minimum": 0 }));
    let (maybe_text, maybe_count) =
        (json!({ "type": ["string", "null"] }), json!({ "type": ["integer", "null"] }));
    let flag = json!({ "type": "boolean" });
    let generation = json!({
        "generation": count,
        "state": { "type": "string", "enum": ["current", "former"] },
        "when": { "type": ["string", "null"], "format": "date-time" },
        "by": text,
        "uid": maybe_count,
        "pid": maybe_count,
        "source": text,
        "digest": text,
        "changed": list(text.clone()),
        "references": { "type": "object", "additionalProperties": text },
    });
    let mut whole = generation.clone();
    whole["config"] = reference("Config");
    let mut problem = closed(json!({
        "file": text,
        "key": text,
        "value": maybe_text,
        "message": text,
        "suggestion": maybe_text,
        "severity": { "type": "string", "enum": ["error", "warning"] },
    }));
    problem["properties"]["line"] = count.clone();
    problem["properties"]["column"] = count.clone();
    let mut error =
        closed(json!({ "error": closed(json!({ "code": text, "message": text, "where": text })) }));
    error["properties"]["problems"] = list(reference("Problem"));
    error["properties"]["omitted"] = count.clone();
    error["properties"]["etag"] = text.clone();
    let mut applied = closed(json!({
        "generation": count,
        "took_ms": { "type": "number" },
        "acknowledged": closed(json!({ "workers": count, "maps": count })),
        "changed": list(text.clone()),
        "warnings": list(text.clone()),
        "dry_run": flag,
    }));
    applied["properties"]["upgraded"] = closed(json!({ "pid": count, "version": text }));
    json!({
        "Applied": applied,
        "Config": {
            "type": "object",
            "description": "The schema of the config file, as JSON; secrets stand in it by reference",
        },
        "Entry": { "type": "object", "description": "One table of the config file, such as `[pool.api]`" },
        "Error": error,
        "Generation": closed(whole),
        "Generations": closed(json!({ "generations": list(closed(generation)) })),
        "List": { "type": "object", "description": "One key, the name of the list; rows of plain values" },
        "OpenApi": open(json!({ "openapi": text, "info": { "type": "object" }, "paths": { "type": "object" } })),
        "Patch": { "type": "object", "description": "JSON merge patch (RFC 7396): null removes a key" },
        "Problem": problem,
        "Status": open(json!({
            "version": text,
            "pid": count,
            "state": { "type": "string", "enum": ["ready", "degraded", "draining"] },
            "degraded": maybe_text,
            "drift": maybe_text,
            "generation": count,
            "etag": text,
            "config": closed(json!({ "path": maybe_text, "digest": maybe_text })),
            "uptime_seconds": count,
            "workers": list(open(json!({ "worker": count, "core": count, "leaves": flag, "open_connections": count, "stuck_seconds": count }))),
            "limits": closed(json!({ "connections": count, "open_files": count })),
            "kernel_tls": closed(json!({ "on": flag, "why": maybe_text })),
            "listeners": list(json!({ "type": "object" })),
            "backends": open(json!({ "up": count, "down": count })),
            "overrides": list(closed(json!({
                "pool": text, "backend": text, "drained": flag, "weight": maybe_count,
            }))),
            "draining": list(closed(json!({
                "pid": count, "seconds": count, "connections": maybe_count, "seconds_left": maybe_count,
            }))),
            "xdp": { "type": ["object", "null"] },
            "warnings": list(text.clone()),
        })),
        "Weight": {
            "type": ["object", "null"],
            "required": ["weight"],
            "properties": { "weight": { "type": ["integer", "null"], "minimum": 1, "maximum": 1000 } },
            "additionalProperties": false,
        },
        "Why": open(json!({ "question": text, "text": text, "steps": list(json!({ "type": "object" })) })),
    })
}
