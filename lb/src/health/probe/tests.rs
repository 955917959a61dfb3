//! What each kind of check makes of what comes, row by row, and cut at every byte.

use proptest::prelude::*;

use super::*;
use crate::{
    config::{HttpCheck, Pattern, Payload},
    metrics::ProbeEnd,
};

fn address() -> std::net::SocketAddr {
    "[2001:db8::1]:80".parse().unwrap()
}

fn http(edit: impl FnOnce(&mut HttpCheck)) -> Script {
    let mut check = HttpCheck {
        path: "/healthz".into(),
        is_head: false,
        status: Statuses::default(),
        body: None,
        host: None,
        headers: Vec::new(),
        tls: None,
    };
    edit(&mut check);
    Script::new(&CheckKind::Http(check), address())
}

fn with_body(text: &str) -> Script {
    http(|check| check.body = Some(BodyTest::Text(text.into())))
}

fn with_pattern(text: &str) -> Script {
    http(|check| check.body = Some(BodyTest::Pattern(Pattern::within(text).unwrap())))
}

fn of(kind: CheckKind) -> Script {
    Script::new(&kind, address())
}

/// The end of a dialogue in which these pieces come, and then the end of the connection.
fn hear<'a>(script: &Script, pieces: impl IntoIterator<Item = &'a [u8]>) -> Found {
    let mut dialogue = script.dialogue();
    for piece in pieces {
        match dialogue.handle(piece) {
            Found::More => {}
            found => return found,
        }
    }
    dialogue.handle_end()
}

/// What it counts as.
fn end(found: &Found) -> ProbeEnd {
    match found {
        Found::Up => ProbeEnd::Answered,
        Found::Down(fault) => fault.end,
        Found::More => panic!("an end that is none"),
    }
}

/// The answer of a whole, which is that of all its cuts.
fn heard(script: &Script, bytes: &[u8]) -> Found {
    let whole = hear(script, [bytes]);
    for cut in 0..=bytes.len() {
        let (a, b) = bytes.split_at(cut);
        assert_eq!(end(&hear(script, [a, b])), end(&whole), "{} cut at {cut}", bytes.escape_ascii());
    }
    let single = hear(script, bytes.chunks(1));
    assert_eq!(end(&single), end(&whole), "{} byte by byte", bytes.escape_ascii());
    whole
}

#[track_caller]
fn up(script: &Script, bytes: &[u8]) {
    assert_eq!(heard(script, bytes), Found::Up, "{}", bytes.escape_ascii());
}

#[track_caller]
fn down(script: &Script, bytes: &[u8], expected: ProbeEnd, text: &str) {
    let Found::Down(fault) = heard(script, bytes) else { panic!("up: {}", bytes.escape_ascii()) };
    assert_eq!((fault.end, &*fault.text), (expected, text), "{}", bytes.escape_ascii());
}

use ProbeEnd::{Closed, Malformed, WrongAnswer};

#[test]
fn a_request_of_http_is_whole() {
    let script = http(|check| {
        check.headers = vec![("X-Key".into(), "1".into())];
    });
    let text = String::from_utf8(script.question().to_vec()).unwrap();
    let expected = "GET /healthz HTTP/1.1\r\nHost: [2001:db8::1]:80\r\nConnection: close\r\nUser-Agent: lb\r\nX-Key: 1\r\n\r\n";
    assert_eq!((&*text, script.label()), (expected, "check http /healthz"));
    let script = http(|check| {
        check.is_head = true;
        check.host = Some("a.example".into());
        check.headers = vec![("user-agent".into(), "me".into())];
    });
    let text = String::from_utf8(script.question().to_vec()).unwrap();
    assert_eq!(
        text,
        "HEAD /healthz HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nuser-agent: me\r\n\r\n"
    );
}

#[test]
fn statuses_decide() {
    let script = http(|_| ());
    up(&script, b"HTTP/1.1 200 OK\r\n\r\n");
    up(&script, b"HTTP/1.0 302\r\nLocation: /x\r\n\r\n");
    up(&script, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 \r\n\r\n");
    down(&script, b"HTTP/1.1 503 Service Unavailable\r\n\r\nsorry", WrongAnswer, "503");
    down(&script, b"HTTP/1.1 101 Switching\r\n\r\n", WrongAnswer, "101");
    let only = http(|check| check.status = Statuses(vec![418..=418]));
    up(&only, b"HTTP/1.1 418 I'm a teapot\r\n\r\n");
    down(&only, b"HTTP/1.1 200 OK\r\n\r\n", WrongAnswer, "200");
}

#[test]
fn what_two_readers_take_differently_is_malformed() {
    let script = with_body("ok");
    for bad in [
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000\r\n\r\n",
        "HTTP/1.1 600 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\n folded: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\na : 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\na\r\n\r\n",
        "HTTP/1.1 200 OK\r\na: 1\nb: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\na: \0\r\n\r\n",
        "HTTP/1.1 200 O\rK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok.",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2x\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a\n\r\nok\r\n0\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        assert_eq!(end(&heard(&script, bad.as_bytes())), Malformed, "{bad:?}");
    }
    let endless = format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(3000));
    assert_eq!(end(&hear(&script, [endless.as_bytes()])), Malformed);
    let interims = "HTTP/1.1 103 Early\r\n\r\n".repeat(1000);
    assert_eq!(end(&hear(&script, [interims.as_bytes()])), Malformed);
}

#[test]
fn bodies_are_read_by_their_framing() {
    let script = with_body("all fine");
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
    up(&script, b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nall fine");
    up(&script, b"HTTP/1.1 200 OK\r\n\r\nis it? all fine");
    up(&script, format!("{chunked}5;x=1\r\nis al\r\n6\r\nl fine\r\n0\r\n\r\n").as_bytes());
    let not = "the body is not as expected";
    down(&script, b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nall fine", WrongAnswer, not);
    down(&script, b"HTTP/1.1 204 No Content\r\n\r\n", WrongAnswer, not);
    down(&script, format!("{chunked}8\r\nall bad.\r\n0\r\n\r\n").as_bytes(), WrongAnswer, not);
    down(&script, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nall", Closed, "closed within the answer");
    down(&script, format!("{chunked}8\r\nall").as_bytes(), Closed, "closed within the answer");
    down(&script, b"HTTP/1.1 200", Closed, "closed within the answer");
    down(&script, b"", Closed, "closed before the answer");
    let script = with_pattern("fine$");
    up(&script, b"HTTP/1.1 200 OK\r\n\r\nall fine");
    down(&script, b"HTTP/1.1 200 OK\r\n\r\nall fine.", WrongAnswer, not);
}

#[test]
fn a_body_is_looked_at_up_to_a_bound() {
    let head = "HTTP/1.1 200 OK\r\n\r\n";
    let late = format!("{head}{}ok", "x".repeat((64 << 10) - 1));
    let in_time = format!("{head}{}ok{}", "x".repeat((64 << 10) - 2), "x".repeat(100_000));
    for script in [with_body("ok"), with_pattern("ok")] {
        assert_eq!(end(&hear(&script, [late.as_bytes()])), WrongAnswer);
        assert_eq!(hear(&script, in_time.as_bytes().chunks(1000)), Found::Up);
    }
}

#[test]
fn redis_answers() {
    let script = of(CheckKind::Redis);
    assert_eq!(script.question(), b"*1\r\n$4\r\nPING\r\n");
    up(&script, b"+PONG\r\n");
    up(&script, b"-NOAUTH Authentication required.\r\n");
    down(&script, b"-LOADING Redis is loading\r\n", WrongAnswer, "-LOADING Redis is loading");
    down(&script, b"-NOAUTHX\r\n", WrongAnswer, "-NOAUTHX");
    down(&script, b"+OK\r\n", WrongAnswer, "+OK");
    down(&script, b"+PONG", Closed, "closed before the answer");
    assert_eq!(end(&heard(&script, b"HTTP/1.1 400\r\n")), Malformed);
    assert_eq!(end(&hear(&script, [&[b'+'; 10_000][..]])), Malformed);
    let long = [b"-ERR ", &[b'x'; 200][..], b"\r\n"].concat();
    let Found::Down(fault) = heard(&script, &long) else { panic!("up") };
    assert_eq!(fault.text.len(), 83);
}

#[test]
fn postgres_answers() {
    let script = of(CheckKind::Postgres);
    let question = script.question();
    assert_eq!(question[..4], (question.len() as u32).to_be_bytes());
    assert_eq!(question[4..8], [0, 3, 0, 0]);
    let message = |kind: u8, body: &[u8]| {
        let length = (body.len() as u32 + 4).to_be_bytes();
        [&[kind][..], &length, body].concat()
    };
    let error = |state: &str, message_text: &str| {
        let fields = format!("SFATAL\0VFATAL\0C{state}\0M{message_text}\0Fpostmaster.c\0\0");
        message(b'E', fields.as_bytes())
    };
    up(&script, &message(b'R', &[0, 0, 0, 10, b'S', b'C', 0, 0]));
    up(&script, &message(b'R', &[0, 0, 0, 0]));
    up(&script, &error("28000", "no pg_hba.conf entry for host"));
    up(&script, &error("53300", "sorry, too many clients already"));
    down(
        &script,
        &error("57P03", "the database system is starting up"),
        WrongAnswer,
        "57P03 the database system is starting up",
    );
    for bad in [
        message(b'E', b"M1\0\0"),
        message(b'E', b"C57P03\0"),
        message(b'E', b"C57P03"),
        message(b'E', b"\0"),
        message(b'R', &[]),
        message(b'R', &[0; 2000]),
        message(b'Z', b"I"),
        b"N".to_vec(),
        b"E\xff\xff\xff\xff".to_vec(),
    ] {
        assert_eq!(end(&heard(&script, &bad)), Malformed, "{}", bad.escape_ascii());
    }
    down(&script, b"R\0\0\0\x08\0\0", Closed, "closed before the answer");
}

#[test]
fn mysql_greets() {
    let script = of(CheckKind::Mysql);
    assert_eq!(script.question(), b"");
    let packet = |number: u8, body: &[u8]| {
        let [a, b, c, _] = (body.len() as u32).to_le_bytes();
        [&[a, b, c, number][..], body].concat()
    };
    let greeting = [b"\x0a10.11.6-MariaDB\0", &[7; 20][..]].concat();
    up(&script, &packet(0, &greeting));
    down(&script, &packet(0, b"\xff\x10\x04Too many connections"), WrongAnswer, "1040 Too many connections");
    down(&script, &packet(0, b"\xff\x6a\x04#HY000Host is blocked"), WrongAnswer, "1130 Host is blocked");
    down(&script, &packet(0, b"\xff\x10\x04"), WrongAnswer, "1040 ");
    for bad in [
        packet(1, &greeting),
        packet(0, b"\x0a8.0\0"),
        packet(0, &[10; 40]),
        packet(0, b"\x09old.........................\0"),
        packet(0, &[0xff]),
        packet(0, b""),
        packet(0, &[10; 2000]),
        b"HTTP/1.1 400\r\n".to_vec(),
    ] {
        assert_eq!(end(&heard(&script, &bad)), Malformed, "{}", bad.escape_ascii());
    }
    down(&script, &packet(0, &greeting)[..9], Closed, "closed before the answer");
}

#[test]
fn datagrams_are_answered_or_not_refused() {
    let payload = |text: &str| Payload { text: text.into(), bytes: text.as_bytes().into() };
    let silent = of(CheckKind::Udp(UdpCheck { send: None, expect: None }));
    assert!(silent.may_be_silent() && silent.is_datagram() && silent.question().is_empty());
    assert_eq!(silent.dialogue().handle(b""), Found::Up);
    let (send, expect) = (Some(payload("q")), Some(payload("pong")));
    let strict = of(CheckKind::Udp(UdpCheck { send, expect }));
    assert!(!strict.may_be_silent() && strict.question() == b"q");
    assert_eq!(strict.dialogue().handle(b"a pong!"), Found::Up);
    assert_eq!(end(&strict.dialogue().handle(b"pon")), WrongAnswer);
}

proptest! {
    /// Whatever comes, however it is cut: one answer, and no panic.
    #[test]
    fn cuts_change_nothing(
        pieces in proptest::collection::vec(prop_oneof![
            Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
            Just(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
            Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
            Just(b"Content-Length: 5\r\n".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"3\r\nook\r\n".to_vec()),
            Just(b"0\r\n".to_vec()),
            Just(b"+PONG".to_vec()),
            Just(b"R\0\0\0\x08".to_vec()),
            Just(b"E\0\0\0\x0cC57P03\0\0".to_vec()),
            Just(b"\x10\0\0\0\x0a8.0\0".to_vec()),
            Just(b"\x05\0\0\0\xff\x10\x04no".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..6),
        ], 0..8),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let bytes = pieces.concat();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        places.sort_unstable();
        let scripts = [
            http(|_| ()), with_body("ok"), with_pattern("^o+k"), of(CheckKind::Redis), of(CheckKind::Postgres),
            of(CheckKind::Mysql),
        ];
        for script in scripts {
            let mut rest = &bytes[..];
            let (mut parts, mut before) = (Vec::new(), 0);
            for place in &places {
                let (part, later) = rest.split_at(place - before);
                parts.push(part);
                (rest, before) = (later, *place);
            }
            parts.push(rest);
            prop_assert_eq!(end(&hear(&script, parts)), end(&hear(&script, [&bytes[..]])), "{}", script.label());
        }
    }
}
