use proptest::prelude::*;

use super::*;
use crate::{
    config::{BackendIds, Config, parse},
    l7::http1::{HeadLimits, Parsed, RequestHead},
    model::Generation,
};

/// One route of a test, as it is written.
#[derive(Clone, Debug, Default)]
struct Spec {
    host: Option<String>,
    path: Option<String>,
    methods: Vec<&'static str>,
    /// Wanted values of field `X-N`; an empty one: just there.
    header: Option<&'static str>,
    /// The same of parameter `n`.
    query: Option<&'static str>,
    priority: u16,
}

#[derive(Debug)]
struct Ask {
    method: &'static str,
    host: String,
    path: String,
    header: Option<&'static str>,
    query: Option<&'static str>,
}

fn text(specs: &[Spec]) -> String {
    let mut text = "version = 1\n[listener.l]\nbind = [\"[::1]:1\"]\nprotocol = \"http\"\n".to_owned();
    for (at, spec) in specs.iter().enumerate() {
        text +=
            &format!("[route.r{at:02}]\nlistener = \"l\"\nrespond = {{}}\npriority = {}\n", spec.priority);
        let quoted = |key: &str, value: &Option<String>, open: &str, close: &str| {
            value.as_ref().map_or_else(String::new, |value| format!("{key} = {open}{value:?}{close}\n"))
        };
        text += &quoted("host", &spec.host, "[", "]");
        text += &quoted("path", &spec.path, "", "");
        if !spec.methods.is_empty() {
            text += &format!("method = {:?}\n", spec.methods);
        }
        for (key, name, value) in [("headers", "X-N", spec.header), ("query", "n", spec.query)] {
            match value {
                None => {}
                Some("") => text += &format!("{key} = {{ {name} = {{ present = true }} }}\n"),
                Some(value) => text += &format!("{key} = {{ {name} = {value:?} }}\n"),
            }
        }
    }
    text
}

/// `None`: the config is refused, as two of the routes are alike.
fn snapshot(specs: &[Spec]) -> Option<Snapshot> {
    let config = parse("f", &text(specs)).ok()?.config;
    Some(Snapshot::build(&config, Generation(1), &mut BackendIds::new()).unwrap())
}

fn with_asked<T>(ask: &Ask, then: impl FnOnce(&Asked<'_>) -> T) -> T {
    let query = ask.query.map_or_else(String::new, |value| format!("?n={value}"));
    let header = ask.header.map_or_else(String::new, |value| format!("X-N: {value}\r\n"));
    let (start, host) = match &*ask.path {
        "*" => ("OPTIONS *".to_owned(), &ask.host),
        path => (format!("{} {path}{query}", ask.method), &ask.host),
    };
    let input = match host.is_empty() {
        true => format!("{start} HTTP/1.0\r\n{header}\r\n"),
        false => format!("{start} HTTP/1.1\r\nHost: {host}\r\n{header}\r\n"),
    };
    let mut head = RequestHead::default();
    assert_eq!(head.parse(input.as_bytes(), &HeadLimits::default()), Ok(Parsed::Complete), "{input}");
    then(&Asked::new(&head, input.as_bytes(), false))
}

/// The rank of a spec: design's order, written anew.
fn rank(spec: &Spec, name: usize) -> impl Ord + use<> {
    use std::cmp::Reverse;
    let host = match spec.host.as_deref() {
        Some(host) if host.starts_with('*') => (1, Reverse(host.len())),
        Some(_) => (0, Reverse(0)),
        None => (2, Reverse(0)),
    };
    let path = match spec.path.as_deref() {
        Some(path) if path.contains('{') => (2, Reverse(0)),
        Some(path) if path.ends_with("/*") => (1, Reverse(path.len())),
        Some(_) => (0, Reverse(0)),
        None => (3, Reverse(0)),
    };
    let count = usize::from(!spec.methods.is_empty())
        + usize::from(spec.header.is_some())
        + usize::from(spec.query.is_some());
    (host, path, Reverse(count), Reverse(spec.priority), name)
}

/// Whether a path of the config takes a routed path, by the README's words.
fn takes_path(pattern: &str, path: &str) -> bool {
    if path == "*" {
        return false;
    }
    let (pattern, has_rest) = match pattern.strip_suffix("/*") {
        Some(pattern) => (pattern, true),
        None => (pattern, false),
    };
    let split = |path: &str| path.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
    let (wanted, got) = (split(pattern), split(path));
    let enough = if has_rest { got.len() >= wanted.len() } else { got.len() == wanted.len() };
    enough
        && wanted.iter().zip(&got).all(|(wanted, got)| match &**wanted {
            "{any}" => !got.is_empty(),
            "{x:x+}" => !got.is_empty() && got.bytes().all(|byte| byte == b'x'),
            literal => literal == got,
        })
}

fn walk(specs: &[Spec], ask: &Ask) -> Option<String> {
    let host = ask.host.to_ascii_lowercase();
    let (method, query) = if ask.path == "*" { ("OPTIONS", None) } else { (ask.method, ask.query) };
    let value = |wanted: Option<&str>, got: Option<&str>| match wanted {
        None => true,
        Some("") => got.is_some(),
        Some(wanted) => got == Some(wanted),
    };
    let takes = |spec: &Spec| {
        let takes_host = match spec.host.as_deref() {
            None => true,
            Some(pattern) => match pattern.strip_prefix('*') {
                Some(suffix) => host.ends_with(suffix) && host.len() > suffix.len(),
                None => host == pattern,
            },
        };
        takes_host
            && spec.path.as_ref().is_none_or(|pattern| takes_path(pattern, &ask.path))
            && (spec.methods.is_empty() || spec.methods.contains(&method))
            && value(spec.header, ask.header)
            && value(spec.query, query)
    };
    let taking = specs.iter().enumerate().filter(|(_, spec)| takes(spec));
    taking.min_by_key(|(at, spec)| rank(spec, *at)).map(|(at, _)| format!("r{at:02}"))
}

fn spec() -> impl Strategy<Value = Spec> {
    let host = prop::option::of(prop_oneof!["(a|b)(\\.(a|b)){0,2}", "\\*(\\.(a|b)){1,3}"]);
    let literal = "(/(x|y)){1,3}/?";
    let prefix = "(/(x|y)){0,3}/\\*";
    let captures = "(/(x|y|\\{any\\})){0,2}/\\{x:x\\+\\}(/(x|y))?(/\\*)?";
    let any = "(/(x|y)){0,2}/\\{any\\}(/(x|y)){0,2}(/\\*)?";
    let path = prop::option::of(prop_oneof![literal, prefix, captures, any]);
    let methods = prop_oneof![
        3 => Just(vec![]),
        1 => Just(vec!["GET"]),
        1 => Just(vec!["GET", "POST"]),
    ];
    let value = || prop_oneof![3 => Just(None), 1 => Just(Some("")), 1 => Just(Some("1"))];
    (host, path, methods, value(), value(), 0u16..2).prop_map(
        |(host, path, methods, header, query, priority)| {
            // The same name twice is no path.
            let path = path.filter(|path| path.matches("{any}").count() < 2);
            Spec { host, path, methods, header, query, priority }
        },
    )
}

fn ask() -> impl Strategy<Value = Ask> {
    let value = || prop_oneof![2 => Just(None), 1 => Just(Some("1")), 1 => Just(Some("2"))];
    let host = "(a|B|b)(\\.(a|A|b)){0,4}|";
    let path = "(/(x|y|xx|z)){1,4}/?|/|\\*";
    (prop_oneof![Just("GET"), Just("POST"), Just("PUT")], host, path, value(), value())
        .prop_map(|(method, host, path, header, query)| Ask { method, host, path, header, query })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Compiled routes give what a walk over the list gives, and so does the walk that `lb why` makes.
    #[test]
    fn equals_the_walk(
        specs in prop::collection::vec(spec(), 0..24),
        asks in prop::collection::vec(ask(), 1..24),
    ) {
        let Some(snapshot) = snapshot(&specs) else { return Ok(()) };
        let routes = Routes::build(&snapshot, ListenerId(0));
        for ask in &asks {
            let (found, first) = with_asked(ask, |asked| {
                let name = |id: RouteId| snapshot.routes[id.index()].name.to_string();
                let first = all(&snapshot, ListenerId(0), asked).next().map(|route| route.name.to_string());
                (routes.find(asked).map(name), first)
            });
            let expected = walk(&specs, ask);
            prop_assert_eq!(&found, &expected, "{} {} {}\n{}", ask.method, ask.host, ask.path, text(&specs));
            prop_assert_eq!(first, expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// One config after the other: what is carried on gives what the walk gives, and holds nothing of what went.
    #[test]
    fn what_is_carried_on_equals_the_walk(
        configs in prop::collection::vec(prop::collection::vec(spec(), 0..16), 2..5),
        asks in prop::collection::vec(ask(), 1..16),
    ) {
        let mut now: Option<(Config, Snapshot, Routes)> = None;
        for specs in &configs {
            let Ok(loaded) = parse("f", &text(specs)) else { continue };
            let config = loaded.config;
            let before = now.as_ref().map(|(config, snapshot, _)| (config, snapshot));
            let snapshot =
                Snapshot::build_after(before, &config, Generation(1), &mut BackendIds::new()).unwrap();
            let routes = match &now {
                None => Routes::build(&snapshot, ListenerId(0)),
                Some((_, before, routes)) => {
                    let mut routes = routes.clone();
                    let changes: Vec<_> = before.routes.changes(&snapshot.routes).collect();
                    changes.iter().filter_map(|(_, old, _)| *old).for_each(|route| routes.remove(route));
                    changes.iter().filter_map(|(.., new)| *new).for_each(|route| routes.insert(route));
                    routes
                }
            };
            let anew = Snapshot::build(&config, Generation(1), &mut BackendIds::new()).unwrap();
            let names = |snapshot: &Snapshot| {
                let ids = snapshot.listeners[0].routes.iter();
                ids.map(|id| snapshot.routes[id.index()].name.clone()).collect::<Vec<_>>()
            };
            prop_assert_eq!(names(&snapshot), names(&anew));
            prop_assert_eq!(snapshot.routes.len(), anew.routes.len());
            prop_assert!(snapshot.routes.iter().all(|route| snapshot.routes[route.id.index()].name == route.name));
            let built = Routes::build(&snapshot, ListenerId(0));
            prop_assert_eq!(&routes.methods, &built.methods);
            prop_assert_eq!(&routes.refusing, &built.refusing);
            for ask in &asks {
                let name = |id: RouteId| snapshot.routes[id.index()].name.to_string();
                let found = with_asked(ask, |asked| routes.find(asked)).map(name);
                prop_assert_eq!(found, walk(specs, ask), "{:?}", ask);
            }
            now = Some((config, snapshot, routes));
        }
        if let Some((_, snapshot, mut routes)) = now {
            snapshot.routes.iter().for_each(|route| routes.remove(route));
            prop_assert!(routes.exact.is_empty() && routes.suffixes.is_empty() && routes.any.is_empty());
            prop_assert!(routes.methods.is_empty() && routes.refusing.is_empty());
        }
    }
}

fn at(host: &str, path: &str) -> Spec {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Spec { host: some(host), path: some(path), ..Spec::default() }
}

fn found(specs: &[Spec], host: &str, path: &str) -> Option<String> {
    let snapshot = snapshot(specs).unwrap();
    let routes = Routes::build(&snapshot, ListenerId(0));
    let ask = Ask { method: "GET", host: host.into(), path: path.into(), header: None, query: None };
    with_asked(&ask, |asked| routes.find(asked)).map(|id| snapshot.routes[id.index()].name.to_string())
}

#[test]
fn a_host_without_a_matching_path_falls_through() {
    let specs = [at("a.b", "/x/*"), at("*.b", "/y"), at("", "")];
    let found = |host: &str, path: &str| found(&specs, host, path);
    assert_eq!(found("A.b", "/x").as_deref(), Some("r00"));
    assert_eq!(found("a.b", "/xy").as_deref(), Some("r02"));
    assert_eq!(found("a.b", "/y").as_deref(), Some("r01"));
    assert_eq!(found("b", "/y").as_deref(), Some("r02"));
    assert_eq!(found("a.b", "*").as_deref(), Some("r02"));
    let snapshot = snapshot(&specs).unwrap();
    let ask = Ask { method: "GET", host: "a.b".into(), path: "/x".into(), header: None, query: None };
    assert_eq!(with_asked(&ask, |asked| Routes::build(&snapshot, ListenerId(7)).find(asked)), None);
}

/// 10 000 routes that differ in their host, path or capture are told apart by look-ups, not one by one: what a request
/// meets on its way down is the same for one route as for all.
#[test]
fn many_routes_share_no_slot() {
    let specs: Vec<_> = (0..2_500)
        .flat_map(|at_| {
            [
                at(&format!("h{at_}.test"), ""),
                at("", &format!("/e{at_}")),
                at("", &format!("/p{at_}/*")),
                at("", &format!("/{{any}}/c{at_}")),
            ]
        })
        .collect();
    let snapshot = snapshot(&specs).unwrap();
    let routes = Routes::build(&snapshot, ListenerId(0));
    assert_eq!(snapshot.routes.len(), 10_000);
    assert!(routes.suffixes.is_empty());
    let lens: Vec<_> = routes.any.prefixes.lens().collect();
    assert!(lens.len() <= 4, "{lens:?}");
    let slots = routes.exact.values().map(|paths| &paths.any);
    let slots = slots.chain(routes.any.exact.values()).chain(routes.any.prefixes.by_key.values());
    assert!(slots.into_iter().all(|slot| matches!(&slot.0[..], [entry] if entry.conditions.is_none())));
    for (host, path, name) in [
        ("h7.test", "/x", 28),
        ("a", "/e1234", 1234 * 4 + 1),
        ("a", "/p2499/x/y", 2499 * 4 + 2),
        ("a", "/x/c5", 5 * 4 + 3),
    ] {
        let ask = Ask { method: "GET", host: host.into(), path: path.into(), header: None, query: None };
        let found = with_asked(&ask, |asked| routes.find(asked)).unwrap();
        assert_eq!(*snapshot.routes[found.index()].name, format!("r{name:02}"));
    }
}
