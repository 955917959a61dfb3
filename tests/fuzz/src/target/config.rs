//! Config files: any text gives a config or says what is wrong, and a config that is shown is the same config.

use std::sync::Arc;

use lb::{
    config::{BackendIds, Snapshot, parse},
    model::Generation,
};
use serde_json::Value;

use super::Target;

/// See the module.
pub const TARGET: Target = Target { name: "config", run, seeds, words };

fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let loaded = match parse("f", &text) {
        Ok(loaded) => loaded,
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems.iter() {
                let said = problem.to_string();
                assert!(!problem.message.contains("a bug"), "{said}");
                assert!(!said.chars().any(char::is_control), "{said:?}");
                assert!(problem.place.is_none_or(|place| place.line >= 1 && place.column >= 1), "{said}");
            }
            assert_eq!(parse("f", &text).err(), Some(problems), "two readings differ");
            return;
        }
    };
    let config = loaded.config;
    let shown = config.to_json();
    let Value::Object(top) = &shown else { panic!("{shown}") };
    let written: String = top.iter().map(|(key, value)| format!("{key} = {}\n", toml_of(value))).collect();
    let again =
        parse("shown", &written).unwrap_or_else(|problems| panic!("{problems}\n{written}\nof {text}"));
    assert_eq!(again.config, config, "{written}\nof {text}");
    let snapshot = Snapshot::build(&config, Generation(1), &mut BackendIds::new());
    let snapshot = Arc::new(snapshot.expect("ids for every backend that a config may have"));
    assert_eq!(snapshot.pools.len(), config.pools.len());
    for (pool, (name, of)) in snapshot.pools.iter().zip(&config.pools) {
        assert_eq!((&pool.name, pool.backends.len()), (name, of.backends.len()));
    }
}

/// TOML's inline syntax: JSON's with `=` for `:`, and no DEL as it is.
fn toml_of(value: &Value) -> String {
    match value {
        Value::Object(table) => {
            let entries: Vec<_> =
                table.iter().map(|(key, value)| format!("\"{key}\" = {}", toml_of(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        value => value.to_string().replace('\x7f', "\\u007f"),
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let readme = include_str!("../../../../README.md");
    let example = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    [example.expect("a config in the README"), WHOLE, "version = 1\n", "version = 1\n[[pool]]\nbackends = []"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

/// What the README's does not say.
const WHOLE: &str = r#"version = 1
[runtime]
workers = [0, 3]
[xdp]
interfaces = ["eth0", { name = "eth1", mode = "generic", gateway = "10.0.0.254" }]
deny = ["203.0.113.0/24", "file:lists/denied.txt"]
allow = ["203.0.113.7/32"]
outer_source = ["198.18.0.0/24", "2001:db8:9::/64"]
secret = "file:keys/hash"
[admin]
socket = "/run/x.sock"
http = ""
[limits]
connections = 7
head_bytes = "3000B"
idle_timeout = "90s"
[state]
dir = "/srv/lb"
[vip.dns]
address = ["192.0.2.53", "2001:db8::53", "198.51.100.0/25"]
ports = ["53/udp", "8000-8100/tcp", "0/udp"]
forward = "gue"
pool = "dns"
flows = "none"
[listener.web]
bind = ["0.0.0.0:80", "192.0.2.0/24:8000-8999"]
protocol = "http"
steer = "hash"
[route.api]
listener = "web"
host = ["API.example.com", "*.example.org"]
path = "/v1/*"
pool = "api"
timeout = "1500ms"
[pool.dns]
balance = "maglev"
backends = ["10.0.1.53"]
health = { tcp = "53", every = "500ms" }
[pool.api]
backends = ["10.0.0.1:80", { address = "[2001:db8::1]:80", weight = 9 }]
keepalive = { idle = "2m", per_worker = 0 }
"#;

fn words() -> Vec<Vec<u8>> {
    let mut words: Vec<&str> =
        WHOLE.split([' ', '\n', '"', ',', '[', ']']).filter(|word| word.len() > 1).collect();
    words.sort_unstable();
    words.dedup();
    words.extend([
        "\"\"\"",
        "'''",
        "\\u0000",
        "\\U0010ffff",
        "\u{feff}",
        "1979-05-27",
        "inf",
        "0x",
        "_",
        "\r\n",
        "[[",
        "]]",
    ]);
    words.into_iter().map(|word| word.as_bytes().to_vec()).collect()
}
