//! Files that are made to take long, and listeners that are their own backends.

use std::fmt::Write as _;

use super::problems;
use crate::config::{FILE_BYTES_MAX, PROBLEMS_MAX, parse};

/// Everything here is judged in well under a second by a release build; without its bound each takes minutes or all
/// memory there is.
#[cfg(test)]
fn is_refused_soon(name: &str, text: &str) {
    assert!(text.len() <= FILE_BYTES_MAX, "{name}: {} bytes", text.len());
    let (sender, receiver) = std::sync::mpsc::channel();
    let text = text.to_owned();
    let judge = move || sender.send(parse("f", &text).map(drop));
    let judge = std::thread::Builder::new().spawn(judge).unwrap();
    let judged = receiver.recv_timeout(std::time::Duration::from_secs(60));
    let problems = judged.unwrap_or_else(|_| panic!("{name}: not judged in time")).unwrap_err();
    judge.join().unwrap().unwrap();
    assert!((1..=PROBLEMS_MAX).contains(&problems.len()), "{name}: {}", problems.len());
}

const HEAD: &str = "version = 1\nxdp.interfaces = [\"eth0\"]\n";

#[test]
fn keys_that_are_nearly_known() {
    let mut text = HEAD.to_owned();
    for at in 0..200_000 {
        writeln!(text, "runtim{at:058} = 1").unwrap();
    }
    is_refused_soon("unknown keys", &text);
}

#[test]
fn references_that_nearly_resolve() {
    let mut text = HEAD.to_owned();
    for at in 0..1000 {
        writeln!(text, "[pool.p{at:063}]\nbackends = [\"10.0.0.1:1\"]").unwrap();
    }
    text.push_str("[listener.l]\nbind = [\"[::1]:1\"]\nprotocol = \"http\"\n");
    for at in 0..50_000 {
        writeln!(text, "[route.r{at}]\nlistener = \"l\"\nhost = [\"h{at}\"]\npool = \"q{at:063}\"").unwrap();
    }
    is_refused_soon("references", &text);
}

#[test]
fn products_of_long_lists() {
    let mut text = HEAD.to_owned();
    let addresses: Vec<_> =
        (0..100_000).map(|at| format!("\"2001:db8::{:x}:{:x}\"", at >> 16, at & 0xffff)).collect();
    let ports: Vec<_> = (1..=65_535).map(|port| format!("\"{port}/tcp\"")).collect();
    let backends: Vec<_> = (0..4000).map(|at| format!("\"10.0.{}.{}\"", at >> 8, at & 255)).collect();
    write!(text, "[vip.v]\naddress = [{}]\nports = [{}]\n", addresses.join(","), ports.join(",")).unwrap();
    write!(text, "forward = \"ipip\"\npool = \"p\"\n[pool.p]\nbackends = [{}]\n", backends.join(","))
        .unwrap();
    is_refused_soon("vip keys", &text);

    let mut text = HEAD.to_owned();
    for at in 0..60_000 {
        write!(text, "[listener.l{at}]\nbind = [\"[::1]:1\"]\nprotocol = \"http\"\n").unwrap();
        write!(text, "[route.r{at}]\nlistener = \"l\"\npool = \"p\"\n").unwrap();
    }
    is_refused_soon("listeners by routes", &text);

    let interfaces: Vec<_> = (0..400_000).map(|at| format!("\"e{at}\"")).collect();
    is_refused_soon(
        "interfaces",
        &format!("version = 1\nxdp.interfaces = [{}]\nx = 1\n", interfaces.join(",")),
    );
}

fn listener(bind: &str, backend: &str) -> Vec<String> {
    problems(&format!(
        "version = 1\n[listener.l]\nbind = [{bind:?}]\nprotocol = \"tcp\"\npool = \"p\"\n[pool.p]\nbackends = [{backend:?}]\n"
    ))
}

#[test]
fn a_listener_is_not_its_own_backend() {
    for (bind, backend) in [
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("0.0.0.0:80", "127.3.2.1:80"),
        ("[::]:80", "[::1]:80"),
    ] {
        let said = listener(bind, backend);
        assert!(
            said.len() == 1 && said[0].contains("is listener.l itself, which uses this pool"),
            "{said:?}"
        );
    }
    for (bind, backend) in [
        ("10.0.0.1:80", "10.0.0.1:81"),
        ("10.0.0.1:80", "10.0.0.2:80"),
        ("0.0.0.0:80", "10.0.0.2:80"),
        ("0.0.0.0:80", "[::1]:80"),
        ("[::]:80", "127.0.0.1:80"),
    ] {
        assert!(listener(bind, backend).is_empty(), "{bind} {backend}");
    }
    let by_route = problems(
        "version = 1\n[listener.l]\nbind = [\"10.0.0.1:80\"]\nprotocol = \"http\"\n[route.r]\nlistener = \"l\"\n\
         pool = \"p\"\n[pool.p]\nbackends = [\"10.0.0.1:80\"]\n",
    );
    assert_eq!(by_route.len(), 1, "{by_route:?}");
}
