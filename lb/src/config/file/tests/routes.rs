//! What routes may say, and what is said of routes that get in each other's way.

use super::{super::parse, problems};

const HEAD: &str = "version = 1\n[listener.l]\nbind = [\"[::1]:1\"]\nprotocol = \"http\"\n\
    [pool.p]\nbackends = [\"10.0.0.1:1\"]\n";

/// Problems of one route, without their place and its name.
fn of_route(lines: &str) -> Vec<String> {
    let text = format!(
        "{HEAD}[route.r]\nlistener = \"l\"\n{lines}\n[route.user]\nlistener = \"l\"\npool = \"p\"\nhost = [\"u\"]\n"
    );
    let short =
        |problem: String| problem.split_once("route.r.").map_or(problem.clone(), |(_, text)| text.to_owned());
    problems(&text).into_iter().map(short).collect()
}

#[test]
fn what_is_wrong_with_a_route_is_said() {
    for (lines, expected) in [
        ("", "pool: missing: must be the name of a pool; or `redirect` or `respond` stands instead"),
        (
            "pool = \"p\"\nrespond = {}",
            "pool = \"p\": stands beside `respond`; a route has one of `pool`, `redirect`, `respond`",
        ),
        (
            "redirect = { path = \"/\" }\nrespond = {}",
            "respond = {}: stands beside `redirect`; a route has one of `pool`, `redirect`, `respond`",
        ),
        (
            "respond = {}\ntimeout = \"1s\"",
            "timeout = \"1s\": has no meaning with `respond`: no backend is asked",
        ),
        (
            "respond = {}\nset_headers = { request = { remove = [\"A\"] } }",
            "set_headers.request = { remove = [\"A\"] }: has no meaning with `respond`: no backend is asked",
        ),
        (
            "respond = {}\nrewrite = { path = \"/\" }",
            "rewrite = { path = \"/\" }: has no meaning with `respond`: no backend is asked",
        ),
        ("respond = { status = 101 }", "respond.status = 101: must be a whole number from 200 to 599"),
        (
            "respond = { status = 204, body = \"x\" }",
            "respond.body = \"x\": an answer with status 204 has no body",
        ),
        (
            "respond = { headers = { content-type = \"x\" } }",
            "respond.headers = { content-type = \"x\" }: Content-Type is given by `content_type`",
        ),
        (
            "respond = { content_type = \"a\\r\\nB: c\" }",
            "respond.content_type = \"a\\r\\nB: c\": must have no control characters: a line break would begin another field",
        ),
        ("redirect = {}", "redirect = {}: leads back to itself: needs `scheme`, `host`, `port` or `path`"),
        (
            "redirect = { status = 304, path = \"/\" }",
            "redirect.status = 304: must be 301, 302, 303, 307 or 308",
        ),
        (
            "redirect = { scheme = \"htps\" }",
            "redirect.scheme = \"htps\": must be one of \"http\", \"https\"; did you mean `https`?",
        ),
        ("redirect = { host = \"*.a\" }", "redirect.host = \"*.a\": must be one host, not a wildcard"),
        (
            "redirect = { path = \"/x/*\" }",
            "redirect.path = \"/x/*\": the `*` stands for that of `path`, which ends in none",
        ),
        (
            "path = \"/{user}\"\npool = \"p\"\nrewrite = { path = \"/{usr}\" }",
            "rewrite.path = \"/{usr}\": `path` has no capture named \"usr\"; did you mean `{user}`?",
        ),
        (
            "pool = \"p\"\nupgrade = [\"h2c\"]",
            "upgrade[0] = \"h2c\": is never passed on: it would carry requests past routes and limits",
        ),
        (
            "pool = \"p\"\nupgrade = [\"a b\"]",
            "upgrade[0] = \"a b\": must be the name of a protocol, such as \"websocket\"",
        ),
        ("pool = \"p\"\nupgrade = [\"a\", \"A\"]", "upgrade[1] = \"A\": this protocol is listed already"),
        (
            "pool = \"p\"\nretry = {}",
            "retry.on: missing: must be an array of causes, such as [\"connect\", \"reset\", \"503\"]",
        ),
        (
            "pool = \"p\"\nretry = { on = [\"404\"] }",
            "retry.on[0] = \"404\": must be one of \"connect\", \"reset\", \"timeout\", \"429\", \"500\", \"502\", \"503\", \"504\"; did you mean `504`?",
        ),
        (
            "pool = \"p\"\nretry = { on = [\"reset\"], attempts = 1 }",
            "retry.attempts = 1: must be a whole number from 2 to 8",
        ),
        (
            "pool = \"p\"\nretry = { on = [\"reset\"], budget = \"0.1\" }",
            "retry.budget = \"0.1\": must be a share from \"0.0001%\" to \"100%\", such as \"1%\"",
        ),
        (
            "pool = \"p\"\nrate_limit = { rate = \"5\", key = \"address\" }",
            "rate_limit.rate = \"5\": a rate is a whole number and /s, /m or /h, such as \"100/s\" or \"5/m\"; did you mean `5/s`?",
        ),
        (
            "pool = \"p\"\nrate_limit = { rate = \"5/s\" }",
            "rate_limit.key: missing: must be \"address\", \"route\" or a field, such as \"header:X-Api-Key\"",
        ),
        (
            "pool = \"p\"\nrate_limit = { rate = \"5/s\", key = \"header:a b\" }",
            "rate_limit.key = \"header:a b\": the name of a field has 1 to 128 letters, digits and hyphens",
        ),
        (
            "pool = \"p\"\nrate_limit = { rate = \"5/s\", key = \"cookie\" }",
            "rate_limit.key = \"cookie\": must be \"address\", \"route\" or a field, such as \"header:X-Api-Key\"",
        ),
        (
            "pool = \"p\"\nbody_bytes = \"2PiB\"",
            "body_bytes = \"2PiB\": a size is a whole number and B, KiB, MiB or GiB, such as \"32KiB\"",
        ),
        ("respond = {}\nidle = \"1s\"", "idle = \"1s\": has no meaning with `respond`: no backend is asked"),
        ("pool = \"p\"\nrewrite = {}", "rewrite = {}: needs `path`, `host` or both"),
        ("pool = \"p\"\npath = \"/{a:(}\"", "path = \"/{a:(}\": in {a:(}: unclosed group"),
        (
            "pool = \"p\"\nmethod = [\"get\"]",
            "method[0] = \"get\": methods are upper case; did you mean `GET`?",
        ),
        ("pool = \"p\"\nmethod = [\"GET\", \"GET\"]", "method[1] = \"GET\": this method is listed already"),
        (
            "pool = \"p\"\nmethod = [\"CONNECT\"]",
            "method[0] = \"CONNECT\": is refused always: tunnels for clients are not supported",
        ),
        ("pool = \"p\"\nheaders = { Host = \"a\" }", "headers.Host = \"a\": the host is matched by `host`"),
        (
            "pool = \"p\"\nheaders = { \"a b\" = \"a\" }",
            "headers.\"a b\" = \"a\": the name of a field has 1 to 128 letters, digits and hyphens",
        ),
        (
            "pool = \"p\"\nheaders = { A = \"1\", a = \"2\" }",
            "headers.a = \"2\": the name stands there already in another case",
        ),
        (
            "pool = \"p\"\nheaders = { A = { prefix = \"1\", regex = \"2\" } }",
            "headers.A = { prefix = \"1\", regex = \"2\" }: must be a string or a table with one of `exact`, `prefix`, `regex`, `present`",
        ),
        (
            "pool = \"p\"\nheaders = { A = { regx = \"1\" } }",
            "headers.A.regx: unknown key; did you mean `regex`?",
        ),
        (
            "pool = \"p\"\nquery = { A = { present = \"yes\" } }",
            "query.A.present = \"yes\": must be true or false; this is a string",
        ),
        ("pool = \"p\"\npriority = 65536", "priority = 65536: must be a whole number from 0 to 65535"),
        (
            "pool = \"p\"\nset_headers.request.set = { Content-Length = \"1\" }",
            "set_headers.request.set.Content-Length = \"1\": cannot be changed: it frames the message, is for one hop only, or is lb's own to write",
        ),
        (
            "pool = \"p\"\nset_headers.response.add = { transfer_encoding = \"x\" }",
            "set_headers.response.add.transfer_encoding = \"x\": cannot be changed: it frames the message, is for one hop only, or is lb's own to write",
        ),
        (
            "pool = \"p\"\nset_headers.request.remove = [\"host\"]",
            "set_headers.request.remove[0] = \"host\": cannot be changed here; `rewrite` has `host` for requests",
        ),
        (
            "pool = \"p\"\nset_headers.request.set = { A = \"1\\r\\nB: 2\" }",
            "set_headers.request.set.A = \"1\\r\\nB: 2\": must have no control characters: a line break would begin another field",
        ),
        (
            "pool = \"p\"\nset_headers.request.set = { A = \" 1\" }",
            "set_headers.request.set.A = \" 1\": must not begin or end with white space; did you mean `1`?",
        ),
        (
            "pool = \"p\"\nset_headers.request = { set = { A = \"1\" }, remove = [\"a\"] }",
            "set_headers.request.remove = [\"a\"]: a stands in `set` too, which replaces it",
        ),
    ] {
        let found = of_route(lines);
        // The second of two problems is that nothing uses the pool, which is a warning and not told.
        assert_eq!(found, [expected], "{lines}");
    }
}

/// Problems of routes, each `NAME: LINES`.
fn among(routes: &[(&str, &str)]) -> Vec<String> {
    let routes = routes
        .iter()
        .map(|(name, lines)| format!("[route.{name}]\nlistener = \"l\"\npool = \"p\"\n{lines}\n"));
    let text = format!("{HEAD}{}", routes.collect::<String>());
    let short =
        |problem: String| problem.split_once("route.").map_or(problem.clone(), |(_, text)| text.to_owned());
    problems(&text).into_iter().map(short).collect()
}

#[test]
fn routes_that_cannot_be_told_apart_are_refused() {
    let header = "headers = { A = \"1\" }";
    assert_eq!(
        among(&[("a", header), ("b", header)]),
        ["b: route.a has the same listener, host, path and conditions"]
    );
    assert_eq!(
        among(&[("a", "path = \"/{x}\""), ("b", "path = \"/{y}\"")]),
        ["b: route.a has the same listener, host and path"]
    );
    assert_eq!(among(&[("a", ""), ("b", "")]), ["b: route.a has the same listener, host and path"]);
    assert_eq!(
        among(&[
            ("a", "host = [\"x\"]\nmethod = [\"GET\", \"PUT\"]"),
            ("b", "host = [\"x\"]\nmethod = [\"PUT\", \"GET\"]")
        ]),
        ["b.host[0] = \"x\": route.a has the same listener, host, path and conditions"]
    );
    for other in [
        "path = \"/\"",
        "headers = { A = \"2\" }",
        "query = { A = \"1\" }",
        "host = [\"h\"]",
        "path = \"/{x}\"",
    ] {
        assert!(among(&[("a", header), ("b", other)]).is_empty(), "{other}");
    }
}

#[test]
fn routes_that_are_never_reached_are_warned_of() {
    for (first, second, who) in [
        ("path = \"/*\"", "path = \"/u/{id}\"", "a (\"/*\")"),
        ("path = \"/u/*\"", "path = \"/u/{id}\"", "a (\"/u/*\")"),
        ("path = \"/u/*\"", "path = \"/u/{id}\"\nmethod = [\"GET\"]", "a (\"/u/*\")"),
        ("path = \"/{x}/*\"", "path = \"/{y}/z\"", "a (\"/{x}/*\")"),
        ("path = \"/{x}/{y}\"", "path = \"/u/{id:[0-9]+}\"", "a (\"/{x}/{y}\")"),
        ("priority = 1", "", "a (any path)"),
        ("method = [\"GET\", \"PUT\"]", "method = [\"GET\"]", "a (any path)"),
        ("headers = { A = \"1\" }\npriority = 2", "headers = { A = \"1\" }\npriority = 1", "a (any path)"),
    ] {
        let expected = format!("b: is never reached: route.{who} goes first and takes all of it");
        assert_eq!(among(&[("a", first), ("b", second)]), [expected], "{first} {second}");
    }
    for (first, second) in [
        ("path = \"/*\"", ""),
        ("path = \"/u/*\"", "path = \"/{id}\""),
        ("path = \"/u/*\"\nmethod = [\"GET\"]", "path = \"/u/{id}\""),
        ("path = \"/{x}\"", "path = \"/{y}/*\""),
        ("path = \"/{x:[0-9]+}\"", "path = \"/{y}\""),
        ("method = [\"GET\"]", "method = [\"GET\", \"PUT\"]"),
        ("host = [\"x\"]\npath = \"/*\"", "path = \"/{id}\""),
    ] {
        assert!(among(&[("a", first), ("b", second)]).is_empty(), "{first} {second}");
    }
    let [warning] = &among(&[
        ("a", "host = [\"*.x\"]\npath = \"/*\""),
        ("b", "host = [\"*.x\", \"y\"]\npath = \"/{id}\""),
    ])[..] else {
        panic!("one warning")
    };
    assert_eq!(warning, "b: is never reached for *.x: route.a (\"/*\") goes first and takes all of it");
}

/// Routes that all stand at one place, or all have captures: the comparison of each with each is bounded.
#[test]
fn many_routes_at_one_place_are_compared_soon() {
    for line in ["headers = { A = \"N\" }", "path = \"/{x}/N\"", "path = \"/N/{x}\"\nmethod = [\"GET\"]"] {
        let routes: Vec<_> =
            (0..10_000).map(|at| (format!("r{at}"), line.replace('N', &at.to_string()))).collect();
        let text: String = routes
            .iter()
            .map(|(name, line)| format!("[route.{name}]\nlistener = \"l\"\npool = \"p\"\n{line}\n"))
            .collect();
        let loaded = parse("f", &format!("{HEAD}{text}")).unwrap();
        assert_eq!((loaded.config.routes.len(), loaded.warnings.len()), (10_000, 0), "{line}");
    }
}

#[test]
fn listeners_trust_whom_they_say() {
    let with = |line: &str| {
        problems(&HEAD.replace("protocol = \"http\"", &format!("protocol = \"http\"\npool = \"p\"\n{line}")))
    };
    assert!(with("trusted_proxies = [\"10.0.0.0/8\", \"2001:db8::1\"]\nforwarded = true").is_empty());
    let [problem] = &with("trusted_proxies = [\"10.0.0.1/8\"]")[..] else { panic!("one problem") };
    assert!(problem.contains("did you mean `10.0.0.0/8`"), "{problem}");
    let [problem] = &with("trusted_proxies = [\"proxy\"]")[..] else { panic!("one problem") };
    assert!(problem.contains("listener.l.trusted_proxies[0] = \"proxy\""), "{problem}");
    let tcp = HEAD.replace("\"http\"", "\"tcp\"\npool = \"p\"\nforwarded = true");
    assert_eq!(
        problems(&tcp),
        ["edge.toml:6:13: listener.l.forwarded = true: only listeners with protocol = \"http\" have it"]
    );
}
