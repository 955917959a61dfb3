//! JSON documents: the same reader, without lines and columns.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{EXAMPLE, json_schema};
use crate::config::{FILE_BYTES_MAX, Problem, Problems, parse, read_json};

pub(super) fn document(text: &str) -> Value {
    toml::from_str(text).unwrap()
}

fn said(document: &Value) -> Vec<String> {
    let problems = match read_json("body", document) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems,
    };
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn the_example_means_the_same() {
    let text = parse("edge.toml", EXAMPLE).unwrap();
    let json = read_json("body", &document(EXAMPLE)).unwrap();
    assert_eq!(json.config, text.config);
    assert!(json.warnings.is_empty());
    let other = read_json("body", &json!({ "version": 1 })).unwrap();
    assert_ne!(other.digest, json.digest);
    assert_eq!(read_json("again", &document(EXAMPLE)).unwrap().digest, json.digest);
}

/// Whatever is wrong with a file is wrong with the document of the same meaning, at the same keys. Every row of
/// [`super::problems`] comes here.
#[track_caller]
pub(super) fn says_the_same(text: &str, expected: &Problems) {
    // What is no TOML has no JSON, and neither has a date.
    let Ok(document) = toml::from_str::<Value>(text) else { return };
    let found = match read_json("f", &document) {
        Ok(loaded) => {
            assert!(json_schema::takes(&document), "{text}");
            loaded.warnings
        }
        Err(problems) => problems,
    };
    let keys = |problems: &Problems| -> BTreeSet<_> {
        let strip = |p: &Problem| (p.key.clone(), p.message.clone(), p.suggestion.clone());
        problems.iter().map(strip).collect()
    };
    assert_eq!(keys(&found), keys(expected), "{text}");
    assert!(found.iter().all(|problem| problem.place.is_none()), "{found}");
}

#[test]
fn values_are_quoted_as_json_and_have_no_place() {
    let document = json!({
        "version": 1,
        "limits": { "connections": 1.5, "head_bytes": 3, "idle_timeout": "60" },
        "pool": { "a": { "backends": ["10.0.0.1:80", "10.0.0.2:x"], "balanse": "p2c" }, "b\n": {} },
        "xdp": { "interfaces": "eth0" },
    });
    assert_eq!(
        said(&document),
        [
            "body: limits.connections = 1.5: must be a whole number; this is a float",
            "body: limits.head_bytes = 3: a size is a string with a unit, such as \"32KiB\" or \"1MiB\"; this is an integer",
            "body: limits.idle_timeout = \"60\": a duration needs a unit, such as \"60s\" or \"5m\"",
            "body: pool.a.backends[1] = \"10.0.0.2:x\": must be an address, with a port behind a listener, such as \"10.0.0.11:8080\" or \"[2001:db8::1]:80\", a name with port, \"srv:SERVICE\" or \"unix:PATH\"",
            "body: pool.a.balanse: unknown key; did you mean `balance`?",
            "body: pool.\"b\\n\": a name has 1 to 64 letters, digits, hyphens and underscores",
            "body: pool.\"b\\n\".backends: missing: must be an array of backends, such as [\"10.0.0.11:8080\", \"10.0.0.12:8080\"]",
            "body: xdp.interfaces = \"eth0\": an array of interfaces is needed, such as [\"eth0\"]; this is a string",
        ]
    );
}

#[test]
fn what_toml_has_no_word_for_is_refused_first() {
    assert_eq!(said(&json!([])), ["body: must be a table; this is an array"]);
    assert_eq!(said(&Value::Null), ["body: must be a table; this is null"]);
    assert_eq!(
        said(&json!({ "version": null, "pool": { "a": { "backends": [null], "nope": 1 } } })),
        [
            "body: pool.a.backends[0] = null: has no meaning here; a key without a value is left out",
            "body: version = null: has no meaning here; a key without a value is left out",
        ]
    );
    let mut deep = json!(1);
    for _ in 0..100 {
        deep = json!({ "a": [deep] });
    }
    let found = said(&json!({ "version": 1, "pool": deep }));
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("body: pool.a[0].a[0].a") && found[0].contains("lies deeper"), "{found:?}");
    let large =
        json!({ "version": 1, "x": ["y".repeat(FILE_BYTES_MAX / 2), "y".repeat(FILE_BYTES_MAX / 2)] });
    assert_eq!(said(&large), ["body: is larger than 16 MiB"]);
    let many = json!({ "version": 1, "x": vec![1; 1 << 20] });
    assert_eq!(said(&many), ["body: holds more than a million values"]);
}

#[test]
fn numbers_are_those_of_the_text() {
    let read = |number: &str| {
        let text = format!("{{\"version\":1,\"limits\":{{\"connections\":{number}}}}}");
        read_json("body", &serde_json::from_str(&text).unwrap())
    };
    assert_eq!(read("7").unwrap().config.limits.connections, 7);
    for number in ["-1", "18446744073709551615", "1e300", "7.0", "1E2"] {
        let found = read(number).unwrap_err();
        assert_eq!((found.len(), &*found.problems[0].key), (1, "limits.connections"), "{number}: {found}");
    }
}
