//! Clients that come back to their backend by a cookie.

use std::net::SocketAddr;

use super::{
    choosing::{Crew, held, named},
    peers::{Client, Message, ok, responder},
    wait_until,
};
use crate::{
    config::{PoolSnapshot, Protocol, Queue, Sticky},
    model::BackendId,
};

fn sticky(pool: &mut PoolSnapshot) {
    pool.choosing.sticky = Some(Sticky { cookie: "lb".into(), secret: None });
}

fn start(workers: usize, backends: &[SocketAddr]) -> Crew {
    Crew::start(workers, Protocol::Http, backends, sticky)
}

fn ask(client: &mut Client, cookies: &str) -> Message {
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{cookies}\r\n"));
    client.receive()
}

/// The cookie that a response sets, as a request says it.
fn given(response: &Message) -> Option<String> {
    let (cookie, rest) = response.value("set-cookie")?.split_once("; ").unwrap();
    assert_eq!(rest, "Path=/; HttpOnly; SameSite=Lax");
    Some(format!("Cookie: {cookie}\r\n"))
}

#[test]
fn a_cookie_leads_back_on_every_worker() {
    let crew = start(2, &[named("a"), named("b"), named("c")]);
    let mut clients = [crew.client(0), crew.client(1)];
    for _ in 0..3 {
        let first = ask(&mut clients[0], "");
        let cookie = given(&first).expect("who has none gets one");
        for at in 0..6 {
            let again = ask(&mut clients[at % 2], &cookie);
            assert_eq!(again.body, first.body);
            assert_eq!(given(&again), None, "it has one that holds");
        }
    }
    crew.stop();
}

#[test]
fn backends_do_not_see_it() {
    let echo = responder(|request| ok(request.value("cookie").unwrap_or("none").as_bytes()));
    let crew = start(1, &[echo]);
    let mut client = crew.client(0);
    let cookie = given(&ask(&mut client, "")).unwrap();
    let token = cookie.trim_start_matches("Cookie: ").trim_end();
    for (sent, seen) in [
        (format!("Cookie: {token}\r\n"), "none"),
        (format!("Cookie: a=1; {token}; b=2\r\n"), "a=1; b=2"),
        ("Cookie: lb=forged; a=1\r\n".to_owned(), "a=1"),
    ] {
        assert_eq!(String::from_utf8_lossy(&ask(&mut client, &sent).body), seen);
    }
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{cookie}Content-Length: 3\r\n\r\nabc"));
    assert_eq!(client.receive().body, b"none");
    crew.stop();
}

#[test]
fn forged_ones_are_counted_and_replaced() {
    let crew = start(1, &[named("a"), named("b")]);
    let mut client = crew.client(0);
    let cookie = given(&ask(&mut client, "")).unwrap();
    let forged = cookie.replace("lb=", "lb=0").replacen("\r\n", "", 1);
    for cookies in [&format!("{forged}\r\n"), "Cookie: lb=\r\n", "Cookie: lb=x; lb=y\r\n"] {
        assert!(given(&ask(&mut client, cookies)).is_some(), "{cookies}");
    }
    assert_eq!(crew.handles[0].metrics.cookies_refused.value(), 4);
    let both = cookie.replace("Cookie: ", "Cookie: lb=x; ");
    assert_eq!(given(&ask(&mut client, &both)), None, "the one that is ours counts");
    crew.stop();
}

#[test]
fn one_that_is_down_is_chosen_anew() {
    let crew = Crew::start(1, Protocol::Http, &[named("a"), named("b"), named("spare")], |pool| {
        sticky(pool);
        pool.backends[2].backup = true;
    });
    let mut client = crew.client(0);
    crew.health.set(BackendId(2), false);
    let first = ask(&mut client, "");
    assert_eq!(first.body, b"a");
    let cookie = given(&first).unwrap();
    crew.health.set(BackendId(1), false);
    let moved = ask(&mut client, &cookie);
    assert_eq!(moved.body, b"spare");
    let cookie = given(&moved).expect("another one");
    crew.health.set(BackendId(1), true);
    let kept = ask(&mut client, &cookie);
    assert_eq!(kept.body, b"spare", "who has come to a backup stays");
    assert_eq!(given(&kept), None);
    crew.stop();
}

/// Who waits for its own backend stops nobody who would take another one.
#[test]
fn who_has_a_home_waits_for_it_and_lets_others_by() {
    let (busy, go) = held("busy");
    let crew = Crew::start(2, Protocol::Http, &[busy, named("free")], |pool| {
        sticky(pool);
        pool.backends.iter_mut().for_each(|backend| backend.max_connections = Some(1));
        pool.choosing.queue = Queue { timeout: super::PATIENCE, ..Queue::default() };
    });
    let waiting = || crew.siblings.permits().gate(&"test".into()).waiting();
    let in_flight = || crew.sum(1, |backend| backend.in_flight.value());
    crew.health.set(BackendId(2), false);
    let mut first = crew.client(0);
    go.send(()).unwrap();
    let cookie = given(&ask(&mut first, "")).unwrap();
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("it is there", || in_flight() == 1);
    crew.health.set(BackendId(2), true);
    let mut home = crew.client(1);
    home.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{cookie}\r\n"));
    wait_until("it waits", || waiting() == 1);
    for worker in [0, 1] {
        assert_eq!(ask(&mut crew.client(worker), "").body, b"free");
    }
    assert_eq!(waiting(), 1);
    go.send(()).unwrap();
    assert_eq!(first.receive().body, b"busy");
    go.send(()).unwrap();
    assert_eq!(home.receive().body, b"busy");
    crew.stop();
}
