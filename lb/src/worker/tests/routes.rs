//! What routes make of requests.

use std::{
    io::{BufReader, Read, Write},
    net::SocketAddr,
    thread,
    time::Duration,
};

use super::{
    Fixture, backend,
    peers::{Client, Message, ok, read_head, read_message, responder},
    wait_until,
};
use crate::{
    config::{BackendIds, Snapshot, parse},
    model::{Generation, reason::CloseReason},
};

/// A worker with listener `web`, these further lines for it, these routes, and pool `p`.
pub(super) fn start(listener: &str, routes: &str, backend: SocketAddr) -> Fixture {
    Fixture::start_with(
        |address| {
            let text = format!(
                "version = 1\n[listener.web]\nbind = [\"{address}\"]\nprotocol = \"http\"\n{listener}\n{routes}\n\
             [pool.p]\nbackends = [\"{backend}\"]\n"
            );
            let config = parse("test", &text).unwrap_or_else(|problems| panic!("{problems}")).config;
            Snapshot::build(&config, Generation(1), &mut BackendIds::new()).unwrap()
        },
        None,
    )
}

/// Answers with the head that came.
fn mirror() -> SocketAddr {
    responder(|request| {
        let body = format!("{}\n{}\n", request.start, request.fields.join("\n"));
        let mut out = b"HTTP/1.1 200 OK\r\nServer: inner\r\nX-Inner: 1\r\n".to_vec();
        out.extend_from_slice(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        out
    })
}

fn seen(message: &Message) -> Vec<String> {
    String::from_utf8(message.body.clone()).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn requests_and_responses_are_changed_as_the_route_says() {
    let routes = r#"
        [route.users]
        listener = "web"
        path = "/u/{id:[0-9]+}/*"
        method = ["GET"]
        pool = "p"
        rewrite = { host = "inner.example:81", path = "/users/{id}/*" }
        [route.users.set_headers.request]
        set = { X-Env = "prod", Accept = "text/plain" }
        add = { X-Tag = "b" }
        remove = ["Cookie"]
        [route.users.set_headers.response]
        set = { Server = "edge" }
        remove = ["X-Inner"]
        [route.rest]
        listener = "web"
        pool = "p"
    "#;
    let fixture = start("", routes, mirror());
    let mut client = Client::new(&fixture);
    client.send(
        "GET /u/7/a%2Fb?c=d HTTP/1.1\r\nHost: a.test\r\nAccept: x/y\r\nCookie: secret\r\nX-Tag: a\r\nX-Env: forged\r\n\r\n",
    );
    let response = client.receive();
    let lines = seen(&response);
    assert_eq!(lines[0], "GET /users/7/a%2Fb?c=d HTTP/1.1");
    for line in [
        "Host: inner.example:81",
        "X-Forwarded-Host: a.test",
        "X-Env: prod",
        "Accept: text/plain",
        "X-Tag: a",
        "X-Tag: b",
    ] {
        assert!(lines.iter().any(|seen| seen == line), "{line} is missing in {lines:?}");
    }
    assert!(
        !lines.iter().any(|line| line.contains("secret") || line.contains("forged") || line.contains("x/y"))
    );
    assert!(response.has("Server: edge") && !response.has("Server: inner") && !response.has("X-Inner: 1"));
    // Another method, and a capture that does not match: the other route, which changes nothing.
    for start in ["HEAD /u/7/x", "GET /u/x/x"] {
        client.send(format!("{start} HTTP/1.1\r\nHost: a.test\r\nCookie: c\r\n\r\n"));
        let (_, fields) = match start.starts_with("HEAD") {
            true => read_head(&mut client.reader).unwrap(),
            false => {
                let response = client.receive();
                assert_eq!(seen(&response)[0], format!("{start} HTTP/1.1"));
                assert!(seen(&response).iter().any(|line| line == "Cookie: c"));
                (String::new(), response.fields)
            }
        };
        assert!(fields.iter().any(|field| field == "X-Inner: 1"), "{start}: {fields:?}");
    }
    fixture.stop();
}

#[test]
fn answers_of_a_route_keep_the_connection_and_ask_nobody() {
    let routes = r#"
        [route.old]
        listener = "web"
        path = "/old/*"
        redirect = { status = 301, path = "/new/*" }
        [route.gone]
        listener = "web"
        path = "/gone"
        respond = { status = 410, body = "gone", headers = { X-Why = "age" } }
    "#;
    let fixture = start("", routes, super::closed_port());
    let mut client = Client::new(&fixture);
    for _ in 0..3 {
        let moved = client.get("/old/x?y");
        assert_eq!(moved.start, "HTTP/1.1 301 Moved Permanently");
        assert_eq!(moved.value("location"), Some("http://a.test/new/x?y"));
        let gone = client.get("/gone");
        assert_eq!((&*gone.start, &*gone.body), ("HTTP/1.1 410 Gone", &b"gone"[..]));
        assert!(gone.has("X-Why: age") && gone.has("Content-Type: text/plain; charset=utf-8"));
    }
    // Pipelined, with HEAD in between.
    client.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\nHEAD /gone HTTP/1.1\r\nHost: a\r\n\r\nGET /old/ HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.receive().body, b"gone");
    let (start, fields) = read_head(&mut client.reader).unwrap();
    assert!(start.contains(" 410 ") && fields.iter().any(|field| field == "Content-Length: 4"), "{fields:?}");
    assert_eq!(client.receive().value("location"), Some("http://a/new/"));
    // A body that nobody reads ends the connection.
    client.send("POST /gone HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    let gone = client.receive();
    assert!(gone.start.contains(" 410 ") && gone.has("Connection: close"));
    assert!(client.is_closed());
    let mut old = Client::new(&fixture);
    old.send("GET /old/ HTTP/1.0\r\n\r\n");
    assert!(old.receive().start.contains(" 400 "), "nobody knows where to send it");
    let listener = &fixture.handle.metrics.listeners[0];
    assert_eq!(listener.responses[2].value(), 4);
    assert_eq!(fixture.reason(CloseReason::Host), 1);
    assert!(fixture.handle.metrics.backends.iter().all(|backend| backend.connect_failures.value() == 0));
    fixture.stop();
}

const SAID: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Port: 443\r\nForwarded: for=203.0.113.9\r\nX-Request-Id: theirs\r\n\r\n";

#[test]
fn only_a_trusted_proxy_speaks_for_others() {
    let fixture = start("pool = \"p\"\nforwarded = true\ntrusted_proxies = [\"192.0.2.0/24\"]", "", mirror());
    let mut client = Client::new(&fixture);
    let mut ids = Vec::new();
    for _ in 0..2 {
        client.send(SAID);
        let lines = seen(&client.receive());
        for line in [
            "X-Forwarded-For: 127.0.0.1".to_owned(),
            "X-Forwarded-Proto: http".to_owned(),
            format!("X-Forwarded-Port: {}", fixture.address.port()),
            "Forwarded: for=127.0.0.1;host=\"a.test\";proto=http".to_owned(),
        ] {
            assert!(lines.contains(&line), "{line} is missing in {lines:?}");
        }
        assert!(
            !lines.iter().any(|line| line.contains("203.0.113.9") || line.contains("theirs")),
            "{lines:?}"
        );
        ids.extend(lines.into_iter().filter(|line| line.starts_with("X-Request-Id: ")));
    }
    assert!(ids.len() == 2 && ids[0] != ids[1] && ids[0].len() == "X-Request-Id: ".len() + 32, "{ids:?}");
    fixture.stop();

    let fixture = start("pool = \"p\"\ntrusted_proxies = [\"127.0.0.1\"]", "", mirror());
    let mut client = Client::new(&fixture);
    client.send(SAID);
    let lines = seen(&client.receive());
    for line in [
        "X-Forwarded-For: 203.0.113.9, 127.0.0.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Port: 443",
        "X-Request-Id: theirs",
    ] {
        assert!(lines.iter().any(|seen| seen == line), "{line} is missing in {lines:?}");
    }
    assert!(!lines.iter().any(|line| line.starts_with("Forwarded:")), "it was not asked for: {lines:?}");
    fixture.stop();
}

#[test]
fn a_request_has_until_its_deadline() {
    let address = backend(|mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some((start, _)) = read_head(&mut reader) {
            let sent = match start.split(' ').nth(1) {
                // Half an answer, and then bytes that come often enough for any idle limit.
                Some("/drip") => (0..200).try_for_each(|at| {
                    thread::sleep(Duration::from_millis(20));
                    stream.write_all(if at == 0 {
                        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
                    } else {
                        b"x"
                    })
                }),
                Some("/quick") => stream.write_all(&ok(b"quick")),
                _ => stream.read_exact(&mut [0; 1000]),
            };
            if sent.is_err() {
                return;
            }
        }
    });
    let routes = "[route.r]\nlistener = \"web\"\npool = \"p\"\ntimeout = \"1h\"\ndeadline = \"300ms\"";
    let fixture = start("", routes, address);
    let mut client = Client::new(&fixture);
    assert_eq!(client.get("/quick").body, b"quick");
    // No answer: the client is told, and the connection is as good as before.
    assert!(client.get("/never").start.contains(" 504 "));
    assert_eq!(fixture.reason(CloseReason::Deadline), 1);
    assert_eq!(client.get("/quick").body, b"quick");
    // Half an answer does not end well.
    client.send("GET /drip HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut bytes = Vec::new();
    let ended = client.reader.read_to_end(&mut bytes);
    assert!(ended.is_err() && bytes.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&bytes));
    assert_eq!(fixture.reason(CloseReason::Deadline), 2);
    // A request that does not end is the client's fault.
    let mut client = Client::new(&fixture);
    client.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\nx");
    let late = client.receive();
    assert!(late.start.contains(" 408 ") && late.has("Connection: close"), "{}", late.start);
    assert_eq!(fixture.reason(CloseReason::BodyTimeout), 1);
    wait_until("nothing is in flight", || {
        fixture.handle.metrics.backends.iter().all(|backend| backend.in_flight.value() == 0)
    });
    fixture.stop();
}

#[test]
fn odd_targets_are_routed_by_what_they_mean() {
    let routes = r#"
        [route.server]
        listener = "web"
        method = ["OPTIONS"]
        respond = { status = 299, body = "server" }
        [route.admin]
        listener = "web"
        path = "/admin/*"
        respond = { status = 403 }
        [route.b]
        listener = "web"
        host = ["b.test"]
        respond = { body = "b" }
    "#;
    let echo = responder(|request: &Message| ok(request.start.as_bytes()));
    let fixture = start("pool = \"p\"", routes, echo);
    for (start, status) in [
        ("OPTIONS *", "299"),
        ("OPTIONS http://a.test", "299"),
        ("GET http://b.test/x", "200"),
        ("GET /admin", "403"),
        ("GET /x/../admin/y", "403"),
        ("GET //admin/", "403"),
        ("GET /%61dmin/", "403"),
        ("GET /admin%2Fy", "403"),
        ("GET http://a.test/./admin", "403"),
        ("GET *", "400"),
        ("GET /../admin", "400"),
        ("GET /admin\\y", "400"),
        ("GET /%00", "400"),
        ("GET /%C0%AE", "400"),
        ("CONNECT a.test:443", "501"),
        ("CONNECT a.test", "400"),
        ("CONNECT /", "400"),
    ] {
        let mut client = Client::new(&fixture);
        client.send(format!("{start} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        let response = read_message(&mut client.reader).unwrap();
        assert_eq!(response.start.split(' ').nth(1), Some(status), "{start}: {}", response.start);
        if status == "200" {
            assert_eq!(response.body, b"b", "{start}");
        }
    }
    assert_eq!(fixture.handle.metrics.backends[1].exchanges.value(), 0);
    fixture.stop();
}
