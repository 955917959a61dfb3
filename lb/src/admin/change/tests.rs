//! Changes on real sockets, with a control that answers by a script.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
};

use serde_json::{Value, json};

use crate::{
    admin::{
        changes::{Applied, Author, Edit, EntryEdit, Etag, Override, Refusal, Wish},
        fixture,
        tests::{Running, exchange, start},
    },
    config::{Problem, Problems, Severity},
    model::Generation,
};

const JSON: &str = "content-type: application/json";

/// An answer, taken apart.
struct Answered {
    status: u16,
    head: String,
    body: Value,
}

impl Answered {
    fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
        Self { status, head: head.to_owned(), body }
    }

    fn code(&self) -> (u16, &str) {
        (self.status, self.body["error"]["code"].as_str().unwrap_or("-"))
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }
}

fn ask(running: &Running, first: &str, fields: &[&str], body: &str) -> Answered {
    let length = format!("content-length: {}", body.len());
    let mut head = vec![first.to_owned() + " HTTP/1.1", "host: x".to_owned()];
    if !body.is_empty() {
        head.push(length);
    }
    head.extend(fields.iter().map(|field| (*field).to_owned()));
    let request = format!("{}\r\n\r\n{body}", head.join("\r\n"));
    Answered::of(&exchange(UnixStream::connect(&running.socket).unwrap(), &request))
}

fn controlled(
    name: &str,
    script: impl Fn(&Wish) -> Result<Applied, Refusal> + Send + 'static,
) -> (Running, flume::Receiver<Wish>) {
    let (view, wishes) = fixture::controlled(script);
    (start(name, view), wishes)
}

fn obedient(name: &str) -> (Running, flume::Receiver<Wish>) {
    controlled(name, |wish| Ok(fixture::applied(wish)))
}

#[test]
fn every_change_comes_to_control_as_it_is_meant() {
    let (running, wishes) = obedient("meant");
    let entry = |edit| Edit::Entry { table: "pool", name: "app".to_owned(), edit };
    let over = |pool: &str, address: &str, change| Edit::Override {
        pool: pool.to_owned(),
        address: address.to_owned(),
        change,
    };
    let merge = "content-type: application/merge-patch+json; charset=utf-8";
    let toml = "content-type: application/toml";
    let v6 = "[2001:db8::1]:80";
    let file = Edit::File { path: PathBuf::from("/etc/lb/a b.toml"), text: "version = 1\n".to_owned() };
    for (first, fields, body, edit) in [
        ("PUT /v1/config", &[JSON][..], r#"{"version":1}"#, Edit::Whole(json!({"version": 1}))),
        ("PATCH /v1/config", &[merge], r#"{"pool":null}"#, Edit::Merge(json!({"pool": null}))),
        ("PATCH /v1/config", &[JSON], "{}", Edit::Merge(json!({}))),
        ("PUT /v1/config/pool/app", &[JSON], r#"{"a":1}"#, entry(EntryEdit::Put(json!({"a": 1})))),
        ("PATCH /v1/config/pool/app", &[merge], r#"{"a":1}"#, entry(EntryEdit::Merge(json!({"a": 1})))),
        ("DELETE /v1/config/pool/app", &[], "", entry(EntryEdit::Remove)),
        ("DELETE /v1/config/pool/%61pp", &[], "", entry(EntryEdit::Remove)),
        ("POST /v1/rollback/12", &[], "", Edit::Rollback(Generation(12))),
        (
            "POST /v1/backends/app/127.0.0.1:9001/drain",
            &[],
            "",
            over("app", "127.0.0.1:9001", Override::Drain),
        ),
        ("POST /v1/backends/a%2Fb/[2001:db8::1]:80/undrain", &[], "", over("a/b", v6, Override::Undrain)),
        (
            "POST /v1/backends/app/%5B2001%3Adb8::1%5D:80/drain",
            &["content-length: 0"],
            "",
            over("app", v6, Override::Drain),
        ),
        (
            "POST /v1/backends/app/unix:%2Frun%2Fapp+1.sock/weight",
            &[JSON],
            r#"{"weight": 1000}"#,
            over("app", "unix:/run/app+1.sock", Override::Weight(Some(1000))),
        ),
        (
            "POST /v1/backends/app/a/weight",
            &[JSON],
            r#"{"weight": 3.0}"#,
            over("app", "a", Override::Weight(Some(3))),
        ),
        ("POST /v1/backends/app/a/weight", &[JSON], "null", over("app", "a", Override::Weight(None))),
        (
            "POST /v1/backends/app/a/weight",
            &[JSON],
            r#"{"weight":null}"#,
            over("app", "a", Override::Weight(None)),
        ),
        ("POST /v1/apply?path=/etc/lb/a+b.toml", &[toml], "version = 1\n", file),
    ] {
        let answer = ask(&running, first, fields, body);
        assert_eq!(answer.status, 200, "{first}: {}", answer.body);
        let wish = wishes.recv().unwrap();
        assert_eq!((&wish.edit, wish.if_match, wish.is_dry), (&edit, None, false), "{first}");
    }
    assert!(wishes.is_empty(), "each was asked once");
}

#[test]
fn what_was_made_is_said_with_the_etag_that_holds() {
    let (running, wishes) = obedient("made");
    let answer = ask(&running, "PUT /v1/config?dry_run=1", &[JSON], "{}");
    let expected = json!({
        "generation": 7,
        "took_ms": 4.25,
        "acknowledged": { "workers": 2, "maps": 1 },
        "changed": ["pool.app.backends", "route.api"],
        "warnings": ["pool.dns has no health"],
        "dry_run": true,
    });
    assert_eq!((answer.status, answer.field("etag"), &answer.body), (200, Some("\"e7\""), &expected));
    assert!(wishes.recv().unwrap().is_dry);
    for (said, is_dry) in [("0", false), ("false", false), ("true", true)] {
        ask(&running, &format!("POST /v1/rollback/1?dry_run={said}"), &[], "");
        assert_eq!(wishes.recv().unwrap().is_dry, is_dry, "{said}");
    }
}

#[test]
fn whoever_asks_is_named_by_the_kernel() {
    let (running, wishes) = obedient("author");
    let agent = |by: &str| format!("user-agent: lb/{} {by}", env!("CARGO_PKG_VERSION"));
    for (fields, by) in [
        (vec![], "api"),
        (vec![agent("apply")], "apply"),
        (vec![agent("weight")], "weight"),
        (vec![agent("signal")], "api"),
        (vec!["user-agent: curl/8 apply".to_owned()], "api"),
    ] {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        ask(&running, "POST /v1/rollback/1", &fields, "");
        let us = (Some(rustix::process::geteuid().as_raw()), Some(std::process::id()));
        let author = Author { by: by.into(), uid: us.0, pid: us.1 };
        assert_eq!(wishes.recv().unwrap().by, author);
    }
}

/// As control does it: the wish names what the config must be.
fn racing(wish: &Wish) -> Result<Applied, Refusal> {
    let current = Etag("now".into());
    match &wish.if_match {
        Some(tags) if !tags.contains(&current) => Err(Refusal::Lost { current }),
        _ => Ok(fixture::applied(wish)),
    }
}

#[test]
fn a_lost_race_is_409_with_the_etag_that_won() {
    let (running, wishes) = controlled("race", racing);
    let put = |tags: &str| ask(&running, "PUT /v1/config", &[JSON, &format!("if-match: {tags}")], "{}");
    for tags in ["\"now\"", "\"old\", \"now\"", "*"] {
        assert_eq!(put(tags).status, 200, "{tags}");
    }
    for tags in ["\"old\"", "\"old\", W/\"now\"", "W/\"now\""] {
        let lost = put(tags);
        assert_eq!((lost.code(), lost.field("etag")), ((409, "lost-race"), Some("\"now\"")), "{tags}");
        assert_eq!(lost.body["etag"], "now");
    }
    assert_eq!(put("now").code(), (400, "if-match"));
    let refused = ask(&running, "PUT /v1/config", &[JSON, "if-none-match: *"], "{}");
    assert_eq!(refused.code(), (400, "if-none-match"));
    assert_eq!(wishes.try_iter().count(), 6, "what cannot be meant is not asked");
}

#[test]
fn a_star_wants_the_entry_to_be_there_and_to_stay() {
    let (running, wishes) = obedient("star");
    let etag = fixture::view().etag;
    for first in ["PUT /v1/config/pool/app", "PATCH /v1/config/pool/app"] {
        assert_eq!(ask(&running, first, &[JSON, "if-match: *"], "{}").status, 200);
        assert_eq!(wishes.recv().unwrap().if_match, Some(vec![etag.clone()]));
    }
    let lost = ask(&running, "DELETE /v1/config/pool/nope", &["if-match: *"], "");
    assert_eq!((lost.code(), lost.field("etag")), ((409, "lost-race"), Some(&*etag.to_string())));
    assert!(wishes.is_empty());
}

#[test]
fn what_control_refuses_has_a_status_of_its_own() {
    let (running, _wishes) = controlled("refused", |wish| {
        let Edit::Rollback(Generation(number)) = wish.edit else { panic!("{wish:?}") };
        let problem = |line| Problem {
            file: "config".to_owned(),
            place: Some(crate::config::Place { line, column: 2 }),
            key: "pool.app.backends[0]".to_owned(),
            value: Some("\"x\"".to_owned()),
            message: "must be an address".to_owned(),
            suggestion: None,
            severity: Severity::Error,
        };
        Err(match number {
            1 => Refusal::Invalid(Problems { problems: vec![problem(1)], omitted: 0 }),
            2 => Refusal::Invalid(Problems { problems: vec![problem(1), problem(2)], omitted: 5 }),
            3 => Refusal::NotFound { at: "generation 3".to_owned(), message: "is not kept".to_owned() },
            4 => Refusal::Unappliable { at: "runtime.workers".to_owned(), message: "restart".to_owned() },
            _ => Refusal::NotReady("it starts".to_owned()),
        })
    });
    let rollback = |number: u32| ask(&running, &format!("POST /v1/rollback/{number}"), &[], "");
    let one = rollback(1);
    assert_eq!((one.code(), &one.body["error"]["where"]), ((400, "invalid"), &json!("pool.app.backends[0]")));
    let message = "config:1:2: pool.app.backends[0] = \"x\": must be an address";
    assert_eq!(
        (&one.body["error"]["message"], &one.body["problems"][0]["line"]),
        (&json!(message), &json!(1))
    );
    let many = rollback(2);
    assert_eq!(many.body["error"]["message"], "the config has 7 problems");
    assert_eq!((many.body["problems"].as_array().unwrap().len(), &many.body["omitted"]), (2, &json!(5)));
    let missing = rollback(3);
    assert_eq!(
        (missing.code(), &missing.body["error"]["where"]),
        ((404, "not-found"), &json!("generation 3"))
    );
    let stuck = rollback(4);
    assert_eq!(
        stuck.body["error"],
        json!({ "code": "unappliable", "message": "restart", "where": "runtime.workers" })
    );
    assert_eq!(stuck.status, 422);
    let early = rollback(5);
    assert_eq!((early.code(), early.field("retry-after")), ((503, "not-ready"), Some("1")));
}

#[test]
fn without_a_control_nothing_is_changed() {
    let running = start("nobody", fixture::view());
    assert_eq!(ask(&running, "POST /v1/rollback/1", &[], "").code(), (503, "not-ready"));
    let (changes, letters) = crate::admin::changes::Changes::channel();
    drop(letters);
    let running = start("gone", crate::admin::View { changes: Some(changes), ..fixture::view() });
    assert_eq!(ask(&running, "POST /v1/rollback/1", &[], "").code(), (503, "not-ready"));
}

#[test]
fn what_cannot_be_meant_is_refused_before_control_hears_of_it() {
    let (running, wishes) = obedient("mistakes");
    let toml = "content-type: application/toml";
    for (first, fields, body, status, place) in [
        ("PUT /v1/config", &[JSON][..], "{\n\"a\" 1}", 400, "body, line 2, column 5"),
        ("PUT /v1/config", &[JSON], "{\"a\":1,\"a\":2}", 400, "body, line 1, column 10"),
        ("PATCH /v1/config", &[JSON], "null", 400, "body"),
        ("PUT /v1/config/pool/app", &[JSON], "[]", 400, "body"),
        ("PUT /v1/config", &[], "{}", 415, "content-type"),
        ("PUT /v1/config", &["content-type: application/x-www-form-urlencoded"], "{}", 415, "content-type"),
        ("PUT /v1/config", &["content-type: application/merge-patch+json"], "{}", 415, "content-type"),
        ("POST /v1/apply?path=/a.toml", &[JSON], "{}", 415, "content-type"),
        ("PUT /v1/config", &[JSON, "content-encoding: gzip"], "{}", 415, "content-encoding"),
        ("PUT /v1/config", &[JSON], "", 411, "content-length"),
        ("DELETE /v1/config/pool/app", &[], "{}", 400, "body"),
        ("PUT /v1/config?dry_run=maybe", &[JSON], "{}", 400, "maybe"),
        ("PUT /v1/config?dryrun=1", &[JSON], "{}", 400, "dryrun"),
        ("PUT /v1/config/limits/rate", &[JSON], "{}", 404, "limits"),
        ("POST /v1/rollback/x", &[], "", 404, "x"),
        ("POST /v1/rollback/+1", &[], "", 404, "+1"),
        ("POST /v1/rollback/99999999999999999999", &[], "", 404, "99999999999999999999"),
        ("POST /v1/apply", &[toml], "version = 1", 400, "path"),
        ("POST /v1/apply?path=lb.toml", &[toml], "version = 1", 400, "path"),
        ("POST /v1/apply?path=/", &[toml], "version = 1", 400, "path"),
        ("POST /v1/backends/app/a/weight", &[JSON], "3", 400, "body"),
        ("POST /v1/backends/app/a/weight", &[JSON], "{\"weight\":0}", 400, "body"),
        ("POST /v1/backends/app/a/weight", &[JSON], "{\"weight\":1001}", 400, "body"),
        ("POST /v1/backends/app/a/weight", &[JSON], "{\"weight\":1.5}", 400, "body"),
        ("POST /v1/backends/app/a/weight", &[JSON], "{\"weight\":1,\"x\":1}", 400, "body"),
        ("POST /v1/backends/app/a/flush", &[], "", 404, "/v1/backends/app/a/flush"),
        ("POST /v1/backends/app/%zz/drain", &[], "", 400, "%zz"),
    ] {
        let answer = ask(&running, first, fields, body);
        let shown = &answer.body;
        assert_eq!((answer.status, &shown["error"]["where"]), (status, &json!(place)), "{first}: {shown}");
    }
    assert!(wishes.is_empty());
}

#[test]
fn other_methods_are_told_which_there_are() {
    let (running, wishes) = obedient("methods");
    for (first, allowed) in [
        ("POST /v1/config", "GET, HEAD, PUT, PATCH"),
        ("OPTIONS /v1/config/pool/app", "GET, HEAD, PUT, PATCH, DELETE"),
        ("GET /v1/apply", "POST"),
        ("HEAD /v1/rollback/1", "POST"),
        ("PUT /v1/backends/app/a/drain", "POST"),
        ("PUT /v1/generations", "GET, HEAD"),
    ] {
        let answer = ask(&running, first, &[], "");
        assert_eq!((answer.status, answer.field("allow")), (405, Some(allowed)), "{first}");
    }
    let head = ask(&running, "HEAD /v1/config", &[], "");
    assert_eq!((head.status, head.body), (200, json!("")));
    let whole = ask(&running, "GET /v1/config", &[], "");
    assert_eq!(
        head.head.lines().skip(1).find(|line| line.starts_with("etag: ")),
        whole.head.lines().find(|line| line.starts_with("etag: "))
    );
    assert!(wishes.is_empty());
}

#[test]
fn bodies_are_bounded_however_they_come() {
    let (running, wishes) = obedient("large");
    let connect = || UnixStream::connect(&running.socket).unwrap();
    let head = format!("PUT /v1/config HTTP/1.1\r\nhost: x\r\n{JSON}\r\n");
    let stated = exchange(connect(), &format!("{head}content-length: 16777217\r\n\r\n"));
    assert_eq!(Answered::of(&stated).code(), (413, "too-large"));
    let whole = |pieces: &str| {
        let answer = exchange(connect(), &format!("{head}transfer-encoding: chunked\r\n\r\n{pieces}"));
        Answered::of(&answer).code().0
    };
    assert_eq!(whole("1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"), 200);
    assert_eq!(wishes.recv().unwrap().edit, Edit::Whole(json!({})));
    assert_eq!(whole("x\r\n"), 400);
    let mut stream = connect();
    let mut writer = stream.try_clone().unwrap();
    let sent = std::thread::spawn(move || {
        let piece = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20));
        let all = [format!("{head}transfer-encoding: chunked\r\n\r\n"), piece.repeat(18)].concat();
        // The server does not take all of it.
        _ = writer.write_all(all.as_bytes());
    });
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    drop(stream);
    sent.join().unwrap();
    assert!(wishes.is_empty());
}

#[test]
fn a_large_body_comes_through_whole() {
    let (running, wishes) = obedient("whole");
    let text = format!("{{\"a\":\"{}\"}}", "x".repeat(3 << 20));
    let told = ask(&running, "PUT /v1/config", &[JSON, "expect: 100-continue"], &text);
    assert_eq!(told.status, 100, "whoever waits for a word is told to go on");
    assert_eq!(wishes.recv().unwrap().edit, Edit::Whole(serde_json::from_str(&text).unwrap()));
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let (running, wishes) = obedient("slow-body");
    let request = format!("PUT /v1/config HTTP/1.1\r\nhost: x\r\n{JSON}\r\ncontent-length: 9\r\n\r\n{{");
    let slow = exchange(UnixStream::connect(&running.socket).unwrap(), &request);
    assert_eq!(Answered::of(&slow).code(), (408, "timeout"));
    assert!(wishes.is_empty());
}

#[test]
fn the_tcp_endpoint_changes_nothing() {
    let (running, wishes) = obedient("tcp");
    let ask = |first: &str, host: &str| {
        let request = format!("{first} HTTP/1.1\r\nhost: {host}\r\n{JSON}\r\ncontent-length: 2\r\n\r\n{{}}");
        Answered::of(&exchange(TcpStream::connect(running.http).unwrap(), &request))
    };
    for first in [
        "PUT /v1/config",
        "PATCH /v1/config/pool/app",
        "DELETE /v1/config/pool/app",
        "POST /v1/rollback/1",
        "POST /v1/apply?path=/a",
        "POST /v1/backends/app/127.0.0.1:9001/drain",
    ] {
        assert_eq!(ask(first, "127.0.0.1").code(), (403, "read-only"), "{first}");
        assert_eq!(ask(first, "evil.example").code(), (421, "host"), "{first}");
    }
    assert_eq!(ask("PUT /readyz", "127.0.0.1").code(), (405, "method-not-allowed"));
    for first in ["GET /v1/config", "GET /v1/config/pool/app", "GET /v1/generations", "GET /v1/generations/1"]
    {
        assert_eq!(ask(first, "127.0.0.1").code(), (404, "not-found"), "{first}");
    }
    assert!(wishes.is_empty());
}

#[test]
fn a_change_may_take_longer_than_reading_and_does_not_block_it() {
    let (hold, held) = flume::bounded::<()>(0);
    let (running, wishes) = controlled("held", move |wish| {
        _ = held.recv();
        Ok(fixture::applied(wish))
    });
    let socket = running.socket.clone();
    let change = std::thread::spawn(move || {
        let stream = UnixStream::connect(socket).unwrap();
        Answered::of(&exchange(stream, "POST /v1/rollback/1 HTTP/1.1\r\nhost: x\r\n\r\n")).status
    });
    assert_eq!(ask(&running, "GET /v1/config", &[], "").status, 200, "while the change waits");
    assert!(wishes.is_empty());
    hold.send(()).unwrap();
    assert_eq!(change.join().unwrap(), 200);
}
