//! Micro-benchmarks of what runs per packet or per request: `cargo bench -p lb-bench`.
//!
//! For spotting a change, not for claims: a loop over warm data says little about a proxy under load. Those are
//! the scenarios' (`cargo xtask bench`).
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run has failed")]

use std::{
    future::{Future as _, pending},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    pin::pin,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};
use lb::{
    balance::{
        ByKey, Generator, Standing, TwoChoices, WHOLE, least_loaded,
        maglev::{DownSet, Member, Table},
        round_robin::RoundRobin,
    },
    config::{BackendIds, Snapshot},
    l7::{
        http1::{
            Body, Downstream, Forwarding, HeadLimits, RequestHead, ResponseHead, Version, encode_request,
            encode_response,
        },
        route::{Asked, Routes},
    },
    model::{BackendId, Generation, ListenerId},
    worker::timer::{Deadline, Timers},
};
use lb_abi::{
    be::Be16,
    bounds::TABLE_LEN,
    flow::FlowKey,
    hash::{self, sip13},
};

fn main() {
    divan::main();
}

/// As a browser sends it.
const REQUEST: &[u8] = b"GET /articles/2026/november?page=2 HTTP/1.1\r\nHost: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\
    Cache-Control: max-age=0\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 23 Nov 2026 19:00:00 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\nContent-Length: 200\r\nConnection: keep-alive\r\n\
    ETag: \"5f3c9a-c8\"\r\nAccept-Ranges: bytes\r\n\r\n";

#[divan::bench]
fn request_parse(bencher: Bencher<'_, '_>) {
    let mut head = RequestHead::default();
    let limits = HeadLimits::default();
    bencher
        .counter(BytesCount::of_slice(REQUEST))
        .bench_local(move || head.parse(black_box(REQUEST), &limits).unwrap());
}

#[divan::bench]
fn request_encode(bencher: Bencher<'_, '_>) {
    let mut head = RequestHead::default();
    head.parse(REQUEST, &HeadLimits::default()).unwrap();
    let client = IpAddr::from([198, 51, 100, 7]);
    let forwarding = Forwarding {
        client,
        scheme: "http",
        authority: b"backend:8080",
        port: 8080,
        is_trusted: false,
        says_forwarded: false,
        request_id: [1, 2],
    };
    let mut out = Vec::with_capacity(2048);
    bencher.bench_local(move || {
        out.clear();
        encode_request(&mut out, black_box(REQUEST), &head, &forwarding, None, None);
        out.len()
    });
}

/// Among so many routes, a quarter each by host, exact path, prefix and captures: it should not matter. The request meets
/// the last that is looked for.
#[divan::bench(args = [4, 100, 10_000])]
fn route_find(bencher: Bencher<'_, '_>, count: usize) {
    let route = |at: usize| {
        let place = match at % 4 {
            0 => format!("host = [\"h{at}.example\"]"),
            1 => format!("path = \"/e{at}\""),
            2 => format!("path = \"/p{at}/*\""),
            _ => format!("path = \"/{{section}}/{}/*\"", 2023 + at),
        };
        format!("[route.r{at}]\nlistener = \"l\"\n{place}\nrespond = {{}}\n")
    };
    let head = "version = 1\n[listener.l]\nbind = [\"[::1]:1\"]\nprotocol = \"http\"\n";
    let text: String = std::iter::once(head.to_owned()).chain((0..count).map(route)).collect();
    let config = lb::config::parse("bench", &text).unwrap().config;
    let snapshot = Snapshot::build(&config, Generation(1), &mut BackendIds::new()).unwrap();
    let routes = Routes::build(&snapshot, ListenerId(0));
    let mut head = RequestHead::default();
    head.parse(REQUEST, &HeadLimits::default()).unwrap();
    bencher
        .bench_local(move || routes.find(&Asked::new(black_box(&head), black_box(REQUEST), false)).unwrap());
}

#[divan::bench]
fn response_parse(bencher: Bencher<'_, '_>) {
    let mut head = ResponseHead::default();
    let limits = HeadLimits::default();
    bencher
        .counter(BytesCount::of_slice(RESPONSE))
        .bench_local(move || head.parse(black_box(RESPONSE), &limits, false).unwrap());
}

#[divan::bench]
fn response_encode(bencher: Bencher<'_, '_>) {
    let mut head = ResponseHead::default();
    head.parse(RESPONSE, &HeadLimits::default(), false).unwrap();
    let to = Downstream { version: Version::Http11, close: false, body: Body::Length(200) };
    let mut out = Vec::with_capacity(2048);
    bencher.bench_local(move || {
        out.clear();
        encode_response(&mut out, black_box(RESPONSE), &head, &to, None);
        out.len()
    });
}

fn flow(source: IpAddr, destination: IpAddr) -> FlowKey {
    let form = |address| match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    FlowKey {
        source: form(source),
        destination: form(destination),
        source_port: Be16::new(40_000),
        destination_port: Be16::new(443),
        protocol: 6,
        pad: [0; 3],
    }
}

#[divan::bench]
fn flow_hash_v4(bencher: Bencher<'_, '_>) {
    let key = flow(Ipv4Addr::new(198, 51, 100, 7).into(), Ipv4Addr::new(192, 0, 2, 1).into());
    bencher.bench_local(|| hash::flow(black_box([1, 2]), black_box(&key)));
}

#[divan::bench]
fn flow_hash_v6(bencher: Bencher<'_, '_>) {
    let address = |last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into();
    let key = flow(address(7), address(1));
    bencher.bench_local(|| hash::flow(black_box([1, 2]), black_box(&key)));
}

fn members(count: u16) -> Vec<Member> {
    let identity = |id: u16| sip13([7, 7], [u64::from(id)]);
    (1..=count).map(|id| Member { id: BackendId(id), identity: identity(id), weight: 1 }).collect()
}

#[divan::bench(args = [10, 100, 1000, 4000])]
fn maglev_build(bencher: Bencher<'_, '_>, count: u16) {
    let members = members(count);
    bencher.bench_local(|| Table::build(TABLE_LEN, [1, 2], black_box(&members), None));
}

#[divan::bench(args = [10, 100, 1000, 4000])]
fn maglev_rebuild_without_one(bencher: Bencher<'_, '_>, count: u16) {
    let members = members(count);
    let table = Table::build(TABLE_LEN, [1, 2], &members, None);
    bencher.bench_local(|| Table::build(TABLE_LEN, [1, 2], black_box(&members[1..]), Some(&table)));
}

#[divan::bench]
fn maglev_overlay_one_down_of_100(bencher: Bencher<'_, '_>) {
    let table = Table::build(TABLE_LEN, [1, 2], &members(100), None);
    let down: DownSet = [BackendId(1)].into_iter().collect();
    bencher.bench_local(|| table.overlay(black_box(&down)));
}

#[divan::bench]
fn maglev_slot(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| hash::slot(black_box(0x9e37_79b1), black_box(TABLE_LEN)));
}

/// So many backends, all up, of the same weight.
struct Alike(usize);

impl Standing for Alike {
    fn len(&self) -> usize {
        self.0
    }

    fn share(&self, _: usize) -> u32 {
        WHOLE
    }

    fn load(&self, _: usize) -> u64 {
        0
    }
}

#[divan::bench(args = [2, 16, 256])]
fn round_robin_next(bencher: Bencher<'_, '_>, backends: usize) {
    let (mut order, alike) = (RoundRobin::new(backends), Alike(backends));
    bencher.bench_local(move || order.next(&alike));
}

#[divan::bench(args = [2, 16, 256])]
fn least_loaded_of(bencher: Bencher<'_, '_>, backends: usize) {
    let (alike, mut generator) = (Alike(backends), Generator::new(1));
    bencher.bench_local(move || least_loaded(&alike, &mut generator));
}

#[divan::bench(args = [2, 16, 256])]
fn two_choices_next(bencher: Bencher<'_, '_>, backends: usize) {
    let (alike, mut generator) = (Alike(backends), Generator::new(1));
    let choices = TwoChoices::new(std::iter::repeat_n(1, backends));
    bencher.bench_local(move || choices.next(&alike, &mut generator));
}

#[divan::bench(args = [2, 16, 256])]
fn by_key_next(bencher: Bencher<'_, '_>, backends: usize) {
    let names: Vec<String> = (0..backends).map(|at| format!("10.0.0.1:{at}")).collect();
    let by_key = ByKey::new([1, 2], names.iter().map(|name| (&**name, 1)));
    let (alike, mut generator) = (Alike(backends), Generator::new(1));
    bencher.bench_local(move || by_key.next(&alike, generator.next()));
}

/// Deadlines on the wheel: a worker's connections.
const DEADLINES: usize = 10_000;
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// One tick of the wheel is not longer.
const TICK: Duration = Duration::from_millis(16);

fn armed(timers: &Timers, due: Instant) -> Vec<Deadline> {
    let arm = |_| {
        let deadline = timers.deadline();
        deadline.set(due);
        deadline
    };
    (0..DEADLINES).map(arm).collect()
}

/// As for new connections; they go, too.
#[divan::bench]
fn timer_arm_and_drop(bencher: Bencher<'_, '_>) {
    let start = Instant::now();
    let timers = Timers::new(start);
    bencher
        .counter(ItemsCount::new(DEADLINES))
        .bench_local(|| armed(&timers, black_box(start + IDLE_TIMEOUT)));
}

/// As with every exchange: each deadline moves on, and stays queued where it is.
#[divan::bench]
fn timer_move_later(bencher: Bencher<'_, '_>) {
    let start = Instant::now();
    let timers = Timers::new(start);
    let deadlines = armed(&timers, start + IDLE_TIMEOUT);
    let mut now = start;
    bencher.counter(ItemsCount::new(DEADLINES)).bench_local(move || {
        now += TICK;
        deadlines.iter().for_each(|deadline| deadline.set(black_box(now + IDLE_TIMEOUT)));
    });
}

/// One tick while all wait: what a turn of the worker pays for deadlines that are far away.
#[divan::bench]
fn timer_tick(bencher: Bencher<'_, '_>) {
    let start = Instant::now();
    let timers = Timers::new(start);
    let deadlines = armed(&timers, start + IDLE_TIMEOUT);
    for (place, deadline) in (0..).zip(&deadlines) {
        deadline.set(start + Duration::from_secs(100 * 365 * 86_400) + TICK * place);
    }
    let mut now = start;
    bencher.bench_local(move || {
        now += TICK;
        timers.advance(black_box(now));
        deadlines.len()
    });
}

/// All are armed and waited for, spread over a second, and then expire.
#[divan::bench]
fn timer_expire(bencher: Bencher<'_, '_>) {
    let start = Instant::now();
    let timers = Timers::new(start);
    let deadlines = armed(&timers, start + IDLE_TIMEOUT);
    let mut now = start;
    let mut context = Context::from_waker(Waker::noop());
    bencher.counter(ItemsCount::new(DEADLINES)).bench_local(move || {
        for (after, deadline) in (0..).zip(&deadlines) {
            deadline.set(now + Duration::from_micros(after * 100));
            let waiting = pin!(deadline.guard(pending::<()>()));
            assert!(waiting.poll(&mut context).is_pending(), "nobody has turned the wheel");
        }
        now += Duration::from_secs(2);
        timers.advance(black_box(now));
    });
}
