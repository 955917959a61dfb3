//! What an edit makes is the same, read whole or beside the routes that it has nothing to do with.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::config::{Config, Loaded, Problems, Touched, merge, parse, read_edited, read_json};

const START: &str = "version = 1\n[listener.a]\nbind = [\"[::1]:80\"]\nprotocol = \"http\"\n\
    [listener.b]\nbind = [\"[::1]:81\"]\nprotocol = \"http\"\npool = \"p\"\n\
    [listener.t]\nbind = [\"[::1]:82\"]\nprotocol = \"tcp\"\npool = \"q\"\n\
    [pool.p]\nbackends = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n[pool.q]\nbackends = [\"10.0.0.3:80\"]\n";

/// Paths that take each other's requests in every way.
const PATHS: [&str; 10] =
    ["/*", "/x", "/x/*", "/x/y/*", "/{a}", "/{a}/*", "/x/{b}", "/x/{b:y+}", "/{c}/y", "/x/y/{d}/*"];

fn read_both(now: &Loaded, patch: &Value) -> (Result<Loaded, Problems>, Option<Loaded>) {
    let mut whole = now.config.to_json();
    merge(&mut whole, patch);
    let apply = |document: &mut Value| {
        merge(document, patch);
        true
    };
    let touched = Touched::by_patch(patch).unwrap();
    (read_json("f", &whole), read_edited("f", &now.config, &now.notes, &touched, apply))
}

fn route() -> impl Strategy<Value = Value> {
    let hosts = prop_oneof![
        3 => Just(json!([])),
        2 => Just(json!(["h.test"])),
        1 => Just(json!(["h.test", "*.test"])),
        1 => Just(json!(["*.test", "i.test"])),
    ];
    let path = prop::option::weighted(0.9, prop::sample::select(PATHS.to_vec()));
    let listener = prop_oneof![8 => Just("a"), 4 => Just("b"), 1 => Just("t"), 1 => Just("none")];
    let pool = prop_oneof![8 => Just("p"), 4 => Just("q"), 2 => Just("r"), 1 => Just("none")];
    let rest = (0..4_u8, 0..2_u8, any::<bool>(), 0..20_u8);
    (listener, hosts, path, pool, rest).prop_map(|(listener, hosts, path, pool, rest)| {
        let (conditions, priority, has_retry, odd) = rest;
        let mut route = json!({ "listener": listener, "pool": pool, "priority": priority });
        if hosts != json!([]) {
            route["host"] = hosts;
        }
        if let Some(path) = path {
            route["path"] = json!(path);
        }
        if conditions & 1 > 0 {
            route["method"] = json!(["GET"]);
        }
        if conditions & 2 > 0 {
            route["headers"] = json!({ "X-N": { "present": true } });
        }
        if has_retry {
            route["retry"] = json!({ "on": ["connect"], "attempts": 2, "budget": "10%" });
        }
        match odd {
            0 => route["timeout"] = json!("soon"),
            1 => route["path"] = Value::Null,
            2 => route["nonsense"] = json!(1),
            _ => {}
        }
        route
    })
}

fn patch() -> impl Strategy<Value = Value> {
    let names = "[k-t]";
    let some_route = (names, route()).prop_map(|(name, route)| json!({ "route": { name: route } }));
    let gone = names.prop_map(|name| json!({ "route": { name: null } }));
    let two = (names, route(), names)
        .prop_map(|(name, route, gone)| json!({ "route": { gone: null, name: route } }));
    let backends = prop::collection::btree_set(1..5_u8, 1..3);
    let pool = (prop::sample::select(vec!["p", "q", "r"]), backends).prop_map(|(name, backends)| {
        let backends: Vec<_> = backends.iter().map(|last| format!("10.0.0.{last}:80")).collect();
        json!({ "pool": { name: { "backends": backends } } })
    });
    let gone_pool =
        prop::sample::select(vec!["p", "q", "r"]).prop_map(|name| json!({ "pool": { name: null } }));
    let listener = prop_oneof![
        Just(json!({ "listener": { "b": { "pool": null } } })),
        Just(json!({ "listener": { "b": { "pool": "q" } } })),
        Just(json!({ "listener": { "a": { "protocol": "tcp" } } })),
        Just(json!({ "listener": { "b": null } })),
        Just(json!({ "listener": { "a": { "bind": ["10.0.0.3:80"] } } })),
        Just(json!({ "listener": { "a": { "bind": ["[::1]:80"] } } })),
    ];
    let limits = (1..3_u8).prop_map(|at| json!({ "limits": { "idle_timeout": format!("{at}0s") } }));
    prop_oneof![
        8 => some_route, 2 => gone, 2 => two, 2 => pool, 1 => gone_pool, 1 => listener, 1 => limits,
        1 => Just(json!({ "limits": { "head_fields": "many" } })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// One edit after the other: the same config, with the same warnings; and whatever is wrong is left to the reader of
    /// the whole document. Nothing else is.
    #[test]
    fn beside_the_rest_or_whole_it_is_the_same(patches in prop::collection::vec(patch(), 1..24)) {
        let mut now = parse("f", START).unwrap();
        for patch in patches {
            let (whole, beside) = read_both(&now, &patch);
            prop_assert_eq!(whole.is_ok(), beside.is_some(), "{}\n{:?}", patch, whole.err());
            let (Ok(whole), Some(beside)) = (whole, beside) else { continue };
            prop_assert_eq!(&whole.config, &beside.config, "{}", patch);
            prop_assert_eq!(&whole.warnings, &beside.warnings, "{}", patch);
            prop_assert_eq!(beside.notes.index(&beside.config), whole.notes.index(&whole.config), "{}", patch);
            now = beside;
        }
    }
}

/// A thousand routes: only those are read that an edit may have to do with.
#[test]
fn what_an_edit_has_nothing_to_do_with_is_not_read() {
    let mut text = START.to_owned();
    for at in 0..1000 {
        text += &format!("[route.n{at}]\nlistener = \"a\"\npath = \"/n{at}/*\"\npool = \"p\"\n");
    }
    let mut now = parse("f", &text).unwrap();
    for patch in [
        json!({ "route": { "n7": { "path": "/elsewhere/*" } } }),
        json!({ "route": { "new": { "listener": "a", "path": "/new/*", "pool": "q" } } }),
        json!({ "route": { "n8": null } }),
        json!({ "pool": { "p": { "backends": ["10.0.0.9:80"] } } }),
        json!({ "limits": { "head_fields": 50 } }),
    ] {
        let (whole, beside) = read_both(&now, &patch);
        let (whole, beside) = (whole.unwrap(), beside.unwrap());
        assert_eq!(whole.config, beside.config);
        assert_eq!(whole.warnings, beside.warnings);
        let is_same = |name: &str| {
            let route = |config: &Config| std::sync::Arc::as_ptr(&config.routes[name]);
            route(&now.config) == route(&beside.config)
        };
        assert!(is_same("n6") && is_same("n999"), "{patch}");
        now = beside;
    }
    // Alike but for the host, which is looked for among all.
    let taken = json!({ "route": { "late": { "listener": "a", "path": "/n500/*", "pool": "p" } } });
    let (whole, beside) = read_both(&now, &taken);
    assert!(whole.is_err() && beside.is_none());
}
