//! The JSON Schema against the reader: what the one refuses the other does, as far as the schema can know.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, OnceLock},
};

use regex::Regex;
use serde_json::{Value, json};

use super::{EXAMPLE, documents};
use crate::config::{json_schema, parse, read_json, show::tests::WHOLE};

/// Whether the schema takes a document. Knows the keywords that ours has, and no other.
pub(super) fn takes(document: &Value) -> bool {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    fits(SCHEMA.get_or_init(json_schema), document)
}

fn fits(schema: &Value, value: &Value) -> bool {
    let Value::Object(keywords) = schema else { return schema.as_bool().unwrap() };
    keywords.iter().all(|(keyword, rule)| match keyword.as_str() {
        "$schema" | "title" | "examples" => true,
        "const" => value == rule,
        "enum" => rule.as_array().unwrap().contains(value),
        "type" => match rule.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            other => panic!("{other}"),
        },
        "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
        "pattern" => value.as_str().is_none_or(|text| matches(rule.as_str().unwrap(), text)),
        "required" => value.as_object().is_none_or(|table| {
            rule.as_array().unwrap().iter().all(|name| table.contains_key(name.as_str().unwrap()))
        }),
        "properties" => true,
        "additionalProperties" => value.as_object().is_none_or(|table| {
            table.iter().all(|(name, value)| fits(schema["properties"].get(name).unwrap_or(rule), value))
        }),
        "propertyNames" => {
            value.as_object().is_none_or(|table| table.keys().all(|name| fits(rule, &json!(name))))
        }
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| fits(rule, item))),
        "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap()),
        "anyOf" => rule.as_array().unwrap().iter().any(|schema| fits(schema, value)),
        other => panic!("{other}"),
    })
}

/// Each pattern is compiled once.
fn matches(pattern: &str, text: &str) -> bool {
    static PATTERNS: Mutex<BTreeMap<String, Regex>> = Mutex::new(BTreeMap::new());
    let mut patterns = PATTERNS.lock().unwrap();
    let compiled = patterns.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).unwrap());
    compiled.is_match(text)
}

#[test]
fn whole_configs_are_taken_as_written_and_as_shown() {
    for text in [EXAMPLE, WHOLE] {
        assert!(takes(&documents::document(text)));
        assert!(takes(&parse("f", text).unwrap().config.to_json()));
    }
}

/// Paths of all values below one, as JSON pointers; of an array the first item.
fn paths(value: &Value, path: String, found: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(table) => table.iter().map(|(name, value)| (name.replace('/', "~1"), value)).collect(),
        Value::Array(items) => {
            items.iter().take(1).enumerate().map(|(at, item)| (at.to_string(), item)).collect()
        }
        _ => Vec::new(),
    };
    for (name, value) in below {
        paths(value, format!("{path}/{name}"), found);
    }
    found.push(path);
}

/// Each value of the document replaced by one of each type, or taken out, or given an unknown key.
#[test]
fn what_the_schema_refuses_the_reader_refuses() {
    let whole = parse("f", WHOLE).unwrap().config.to_json();
    let mut all = Vec::new();
    paths(&whole, String::new(), &mut all);
    let others = [json!(true), json!(3), json!("x"), json!(["x"]), json!({ "x": 1 })];
    let (mut refused, mut types) = (0, BTreeSet::new());
    let mut judge = |document: &Value, what: &str| {
        let read = read_json("f", document);
        if !takes(document) {
            refused += 1;
            assert!(read.is_err(), "{what}: refused by the schema, and read");
            return;
        }
        // Of names and types the schema knows as much.
        for problem in read.err().iter().flat_map(|problems| problems.iter()) {
            let is_structural =
                ["unknown key", "; this is a"].iter().any(|part| problem.message.contains(part));
            assert!(!is_structural, "{what}: taken by the schema: {problem}");
            types.insert(problem.message.clone());
        }
    };
    for path in &all {
        for other in &others {
            let mut document = whole.clone();
            *document.pointer_mut(path).unwrap() = other.clone();
            judge(&document, &format!("{path} = {other}"));
        }
        let mut document = whole.clone();
        if let Some(Value::Object(table)) = document.pointer_mut(path) {
            table.insert("nope".to_owned(), json!("x"));
            judge(&document, &format!("{path}/nope"));
        }
        if let Some((above, name)) = path.rsplit_once('/') {
            let mut document = whole.clone();
            if let Some(Value::Object(table)) = document.pointer_mut(above) {
                table.remove(&name.replace("~1", "/"));
                judge(&document, &format!("{path} left out"));
            }
        }
    }
    assert!(refused > 500 && types.len() > 10, "{refused}, {}", types.len());
}
