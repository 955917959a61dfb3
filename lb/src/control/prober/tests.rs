//! Checks of real sockets: what is asked, what is told, and what is left behind.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use super::*;
use crate::{
    admin::{CheckView, fixture},
    config::{CheckKind, CheckTrust, GrpcCheck, HttpCheck, Payload, Statuses, TlsCheck, UdpCheck},
    health::{HealthTable, Report, Standing},
    metrics::ProbeMetrics,
    tls::{Trust, Upstream},
};

const EVERY: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(10);

fn target(kind: &CheckKind, address: SocketAddr, fall: u32, rise: u32) -> Target {
    Target {
        id: BackendId(1),
        pool_name: "app".into(),
        health: fixture::view().config.pools["app"].health.clone().unwrap(),
        name: "b".into(),
        authority: address.to_string().into(),
        secure: None,
        address: address.into(),
        program: None,
        initial: Verdict::Up,
        script: Script::new(kind, address),
        policy: Policy { every: EVERY, recheck: EVERY, jitter: Duration::ZERO, timeout: EVERY, fall, rise },
        metrics: Arc::default(),
        report: Arc::default(),
        is_through: false,
    }
}

fn slow(target: Target) -> Target {
    let timeout = Duration::from_secs(2);
    let policy = Policy { every: timeout, recheck: EVERY, timeout, ..target.policy };
    Target { policy, ..target }
}

/// One check that runs.
struct Run {
    told: flume::Receiver<Verdict>,
    metrics: Arc<ProbeMetrics>,
    report: Arc<Report>,
    table: Arc<HealthTable>,
}

impl Run {
    fn start(mut target: Target) -> Self {
        let view = fixture::view();
        let snapshot = view.snapshot.clone();
        // Of pool app, whose first backend it is.
        let pool = snapshot.pools.iter().find(|pool| &*pool.name == "app").unwrap();
        target.id = pool.backends[0].id;
        let (metrics, report) = (target.metrics.clone(), target.report.clone());
        let check = CheckView { metrics: metrics.clone(), report: report.clone(), ..CheckView::default() };
        let (checks, pools) = ([(target.id, check)].into(), view.pools.clone());
        let table = Arc::new(HealthTable::new(8));
        let (sender, told) = flume::unbounded();
        let tell = move |_, verdict| _ = sender.send(verdict);
        let written = table.clone();
        let board = move || Board::new(&snapshot, &checks, &pools, written, &BTreeSet::new(), Box::new(tell));
        let watches = Watches::new(&view.snapshot, Vec::new(), flume::bounded(1).1);
        start(vec![target], watches, 1, None, None, board).unwrap();
        Self { told, metrics, report, table }
    }

    #[track_caller]
    fn is_told(&self, verdict: Verdict, reason: &str) {
        assert_eq!(self.told.recv_timeout(PATIENCE), Ok(verdict));
        assert_eq!(self.table.is_up(BackendId(1)), verdict == Verdict::Up);
        let changed = self.report.findings().changed.map(|(_, reason)| reason);
        assert_eq!(changed.as_deref(), Some(reason));
    }

    fn await_count(&self, end: ProbeEnd, count: u64) {
        let until = Instant::now() + PATIENCE;
        while self.metrics.of(end).value() < count {
            assert!(Instant::now() < until, "{} {}", self.metrics.of(end).value(), end.name());
            thread::sleep(EVERY);
        }
    }
}

#[test]
fn a_target_for_each_checked_backend() {
    let view = fixture::view();
    let views = views(&view.config, &view.snapshot, &BTreeMap::new());
    let targets = targets(&view.config, &view.snapshot, &views, |_| None);
    let ids: Vec<_> = targets.iter().map(|target| target.id.0).collect();
    assert_eq!(ids, [1, 2], "pool dns has no check");
    assert_eq!(targets[1].address, "127.0.0.1:9002".parse::<SocketAddr>().unwrap().into());
}

#[test]
fn targets_come_and_go() {
    let view = fixture::view();
    let snapshot = view.snapshot.clone();
    let pool = snapshot.pools.iter().find(|pool| &*pool.name == "app").unwrap().id;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let of = |id, address| Target { id: BackendId(id), ..target(&CheckKind::Tcp, address, 2, 2) };
    let open = listener.local_addr().unwrap();
    let (stays, leaves, comes) = (of(1, open), of(2, open), of(3, closed));
    let checks = |targets: &[&Target]| -> BTreeMap<_, _> {
        let view = |target: &Target| CheckView { report: target.report.clone(), ..CheckView::default() };
        targets.iter().map(|target| (target.id, view(target))).collect()
    };
    let (sender, told) = flume::unbounded();
    let tell = move |id, verdict| _ = sender.send((id, verdict));
    let (pools, before) = (view.pools.clone(), checks(&[&stays, &leaves]));
    let first = snapshot.clone();
    let table = Arc::new(HealthTable::new(8));
    let board = move || Board::new(&first, &before, &pools, table, &BTreeSet::new(), Box::new(tell));
    let watches = Watches::new(&snapshot, Vec::new(), flume::bounded(1).1);
    let prober = start(vec![stays.clone(), leaves.clone()], watches, 1, None, None, board).unwrap();
    let answered = |target: &Target| target.metrics.of(ProbeEnd::Answered).value();
    let until = |done: &dyn Fn() -> bool| {
        let until = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < until);
            thread::sleep(EVERY);
        }
    };
    until(&|| answered(&leaves) >= 2);
    let mut after = (*snapshot).clone();
    let members = &mut after.pools.iter_mut().find(|of| of.id == pool).unwrap().backends;
    members.remove(1);
    let newcomer = crate::config::BackendSnapshot { id: comes.id, ..members[0].clone() };
    members.insert(0, newcomer);
    let again = Target { metrics: Arc::default(), ..stays.clone() };
    prober.change(Change {
        workers: Vec::new(),
        checks: Arc::new(checks(&[&stays, &comes])),
        snapshot: Arc::new(after),
        targets: vec![again.clone(), comes.clone()],
        reports: view.pools.clone(),
        ports: None,
        programs: None,
    });
    assert_eq!(told.recv_timeout(PATIENCE), Ok((BackendId(3), Verdict::Down)));
    let (seen, left) = (answered(&stays), answered(&leaves));
    until(&|| answered(&stays) >= seen + 5);
    assert_eq!(answered(&leaves), left, "nobody asks who left");
    assert_eq!(answered(&again), 0, "who stays goes on as it was");
    assert!(told.is_empty());
}

#[test]
fn a_backend_that_goes_and_comes_back_is_told_of() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let run = Run::start(target(&CheckKind::Tcp, address, 2, 2));
    run.await_count(ProbeEnd::Answered, 2);
    assert!(run.told.is_empty(), "up is where it began");
    drop(listener);
    run.is_told(Verdict::Down, "check tcp: connection refused, 2 of 2");
    assert!(run.metrics.failed() >= 2);
    let _again = TcpListener::bind(address).unwrap();
    run.is_told(Verdict::Up, "check tcp: passed, 2 of 2");
    assert_eq!(run.metrics.changes.value(), 2);
    assert!(run.report.findings().took.is_some());
}

/// Answers each connection with what `answer` says of its number, once something was asked.
fn serve(answer: impl Fn(usize) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (mut stream, answer) = (stream.unwrap(), answer(number));
            thread::spawn(move || {
                let mut asked = [0; 4096];
                // A greeting comes unasked.
                if answer.first().is_none_or(|first| first.is_ascii_graphic())
                    && stream.read(&mut asked).is_err()
                {
                    return;
                }
                // In two pieces.
                let (a, b) = answer.split_at(answer.len() / 2);
                _ = stream.write_all(a).and_then(|()| {
                    thread::sleep(Duration::from_millis(1));
                    stream.write_all(b)
                });
            });
        }
    });
    address
}

fn healthz() -> CheckKind {
    CheckKind::Http(HttpCheck {
        path: "/healthz".into(),
        is_head: false,
        status: Statuses::default(),
        body: None,
        host: None,
        headers: Vec::new(),
        tls: None,
    })
}

#[test]
fn a_backend_that_answers_503_is_down_until_it_answers_200() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let address = serve(move |number| {
        counted.store(number, Ordering::Relaxed);
        let status = if (2..8).contains(&number) { "503 No" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let run = Run::start(slow(target(&healthz(), address, 3, 2)));
    run.is_told(Verdict::Down, "check http /healthz: 503, 3 of 3");
    run.is_told(Verdict::Up, "check http /healthz: passed, 2 of 2");
    assert!(asked.load(Ordering::Relaxed) >= 9);
    assert_eq!(run.metrics.of(ProbeEnd::WrongAnswer).value(), 6);
    let failed = run.report.findings().failed.map(|(_, reason)| reason);
    assert_eq!(failed.as_deref(), Some("check http /healthz: 503"), "the last one, when it was down already");
}

#[test]
fn servers_of_databases_are_told_from_others() {
    let greeting = b"\x1d\0\0\0\x0a8.0\0\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07";
    let mysql = serve(move |_| greeting[..33].to_vec());
    let redis = serve(|_| b"-NOAUTH Authentication required.\r\n".to_vec());
    let postgres = serve(|_| b"R\0\0\0\x08\0\0\0\x03".to_vec());
    for (kind, address) in
        [(CheckKind::Redis, redis), (CheckKind::Mysql, mysql), (CheckKind::Postgres, postgres)]
    {
        let run = Run::start(slow(target(&kind, address, 1, 1)));
        run.await_count(ProbeEnd::Answered, 1);
        assert_eq!(run.metrics.failed(), 0, "{}", kind.name());
    }
    let run = Run::start(slow(target(&CheckKind::Postgres, serve(|_| b"-".to_vec()), 1, 1)));
    run.is_told(Verdict::Down, "check postgres: no PostgreSQL: \"-\", 1 of 1");
    let run = Run::start(slow(target(&CheckKind::Redis, serve(|_| Vec::new()), 1, 1)));
    run.is_told(Verdict::Down, "check redis: closed before the answer, 1 of 1");
}

#[test]
fn datagrams_are_answered_refused_or_lost() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = server.local_addr().unwrap();
    let payload = |text: &str| Some(Payload { text: text.into(), bytes: text.as_bytes().into() });
    let strict = CheckKind::Udp(UdpCheck { send: payload("ping"), expect: payload("pong") });
    let mute = CheckKind::Udp(UdpCheck { send: None, expect: None });
    // Nobody answers yet, and nobody refuses.
    let quiet = Run::start(target(&mute, address, 1, 1));
    quiet.await_count(ProbeEnd::Quiet, 2);
    assert_eq!(quiet.metrics.failed(), 0);
    let run = Run::start(target(&strict, address, 2, 1));
    run.is_told(Verdict::Down, "check udp: no answer within 20ms, 2 of 2");
    server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let until = Instant::now() + PATIENCE;
    while !run.table.is_up(BackendId(1)) {
        assert!(Instant::now() < until);
        let mut asked = [0; 64];
        let Ok((len, from)) = server.recv_from(&mut asked) else { continue };
        let answer: &[u8] = if &asked[..len] == b"ping" { b"a pong" } else { b"" };
        server.send_to(answer, from).unwrap();
    }
    run.is_told(Verdict::Up, "check udp: passed, 1 of 1");
    drop(server);
    run.is_told(Verdict::Down, "check udp: connection refused, 2 of 2");
    quiet.is_told(Verdict::Down, "check udp: connection refused, 1 of 1");
}

/// A listener whose queue is full drops SYNs: as silent as an address that nobody has.
#[test]
fn silence_times_out_and_leaves_no_socket_behind() {
    use socket2::{Domain, Socket, Type};
    let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    silent.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    silent.listen(0).unwrap();
    let address = silent.local_addr().unwrap().as_socket().unwrap();
    let patience = Duration::from_millis(100);
    let fill = || std::net::TcpStream::connect_timeout(&address, patience).ok();
    let _queued: Vec<_> = std::iter::from_fn(fill).take(64).collect();
    let run = Run::start(target(&CheckKind::Tcp, address, 2, 1));
    run.is_told(Verdict::Down, "check tcp: no connection within 20ms, 2 of 2");
    run.await_count(ProbeEnd::TimedOut, 20);
    // An abandoned socket would go on sending SYNs for two minutes.
    let remote = format!("{:08X}:{:04X} 02", u32::from_ne_bytes([127, 0, 0, 1]), address.port());
    let sockets = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    let waiting = sockets.lines().filter(|line| line.contains(&remote)).count();
    assert!(waiting <= 2, "{waiting} sockets still try:\n{sockets}");
}

/// Who accepts and says nothing is as silent.
#[test]
fn an_answer_that_does_not_come_is_waited_for_until_the_deadline() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let run = Run::start(target(&healthz(), listener.local_addr().unwrap(), 2, 1));
    run.is_told(Verdict::Down, "check http /healthz: no answer within 20ms, 2 of 2");
    drop(listener);
}

/// What another process had taken out is out from the first moment on, whatever its check says, and comes back by itself;
/// who is down stays so.
#[test]
fn who_was_out_elsewhere_is_out_until_its_time_is_over() {
    let mut view = fixture::view();
    let snapshot = Arc::make_mut(&mut view.snapshot);
    let pool = snapshot.pools.iter_mut().find(|pool| &*pool.name == "app").unwrap();
    pool.choosing.outlier = Some(crate::config::Outlier::default());
    let (name, ids) = (pool.name.clone(), pool.backends.iter().map(|backend| backend.id).collect::<Vec<_>>());
    let (out, down) = (ids[0], ids[1]);
    let now = Instant::now();
    let standing = Standing { ejections: 2, since: now, until: Some(now + Duration::from_millis(400)) };
    let reason = "outlier: 5 errors in a row".to_owned();
    let known = vec![Known { pool: name, id: out, standing, reason: reason.clone() }];
    let table = Arc::new(HealthTable::new(8));
    ids.iter().for_each(|id| table.set(*id, false));
    let report = Arc::<Report>::default();
    let check = CheckView { report: report.clone(), ..CheckView::default() };
    let (snapshot, checks, pools) = (view.snapshot.clone(), [(out, check)].into(), view.pools.clone());
    let watches = Watches::new(&snapshot, Vec::new(), flume::bounded(1).1);
    watches.resume(&known);
    let (sender, told) = flume::unbounded();
    let tell = move |id, verdict| _ = sender.send((id, verdict));
    let (written, all) = (table.clone(), known.clone());
    let board = move || {
        let board = Board::new(&snapshot, &checks, &pools, written, &[down].into(), Box::new(tell));
        board.resume(&all);
        board
    };
    let prober = start(Vec::new(), watches, 1, None, None, board).unwrap();
    assert_eq!(prober.known(PATIENCE), Some(known));
    assert_eq!(report.findings().ejected.map(|ejection| ejection.reason), Some(reason));
    assert!(!report.findings().is_down, "nothing speaks against it but that");
    assert_eq!(told.recv_timeout(PATIENCE), Ok((out, Verdict::Down)), "the packet path has to know");
    assert_eq!(told.recv_timeout(PATIENCE), Ok((out, Verdict::Up)));
    assert!(Instant::now() >= now + Duration::from_millis(400) && table.is_up(out) && !table.is_up(down));
    assert_eq!(report.findings().ejected, None);
    let after = prober.known(PATIENCE).unwrap();
    assert_eq!((after[0].standing.ejections, after[0].is_out()), (2, false), "the next time is longer");
}

/// No probe of many is late enough to be held against its backend: each has been asked three times and none has failed. How
/// many a second that may be is no matter of a test, which shares its cores.
#[test]
fn two_thousand_checks_at_once_fail_nobody() {
    const CHECKS: u64 = 2000;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().for_each(drop));
    let metrics = Arc::<ProbeMetrics>::default();
    let patient = Duration::from_secs(4);
    let many = (1..=CHECKS as u16).map(|id| {
        let one = target(&CheckKind::Tcp, address, 1, 1);
        let policy = Policy { every: patient, recheck: patient, timeout: patient, ..one.policy };
        Target { id: BackendId(id), policy, metrics: metrics.clone(), ..one }
    });
    let view = fixture::view();
    let board = move || {
        let table = Arc::new(HealthTable::new(4096));
        Board::new(&view.snapshot, &view.checks, &view.pools, table, &BTreeSet::new(), Box::new(|_, _| ()))
    };
    let watches = Watches::new(&fixture::view().snapshot, Vec::new(), flume::bounded(1).1);
    start(many.collect(), watches, 1, None, None, board).unwrap();
    let until = Instant::now() + 6 * PATIENCE;
    while metrics.of(ProbeEnd::Answered).value() < 3 * CHECKS {
        assert!(Instant::now() < until, "{} answers", metrics.of(ProbeEnd::Answered).value());
        thread::sleep(EVERY);
    }
    assert_eq!(metrics.failed(), 0);
}

/// Of a backend that is asked with TLS, whose certificate nobody looks at.
fn secured(kind: &CheckKind, address: SocketAddr) -> Target {
    let upstream = Arc::new(Upstream::new(Trust::Anyone, None, None, &[]).unwrap());
    let secure = Some(Secure { upstream, name: server_name(kind, &address.into()) });
    Target { secure, ..slow(target(kind, address, 1, 1)) }
}

fn unlooked() -> TlsCheck {
    TlsCheck { sni: None, trust: CheckTrust::Anyone }
}

#[test]
fn who_speaks_no_tls_and_no_http2_is_told_so() {
    let tls = CheckKind::Tls(unlooked());
    let run = Run::start(secured(&tls, serve(|_| b"-ERR what is that\r\n".to_vec())));
    run.is_told(Verdict::Down, "check tls: TLS: the answer is none, 1 of 1");
    let run = Run::start(secured(&tls, serve(|_| Vec::new())));
    run.is_told(Verdict::Down, "check tls: closed before the answer, 1 of 1");
    let grpc = CheckKind::Grpc(GrpcCheck { service: "orders".into(), host: None, tls: None });
    let http1 = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    let run = Run::start(slow(target(&grpc, serve(|_| http1.to_vec()), 1, 1)));
    run.is_told(Verdict::Down, "check grpc orders: no HTTP/2: FRAME_SIZE_ERROR, 1 of 1");
    let run = Run::start(slow(target(&grpc, serve(|_| Vec::new()), 1, 1)));
    run.is_told(Verdict::Down, "check grpc orders: closed before the answer, 1 of 1");
}

#[test]
fn a_handshake_that_does_not_end_is_waited_for_until_the_deadline() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    for kind in [
        CheckKind::Tls(unlooked()),
        CheckKind::Grpc(GrpcCheck { service: "".into(), host: None, tls: Some(unlooked()) }),
    ] {
        let policy = target(&kind, address, 2, 1).policy;
        let run = Run::start(Target { policy, ..secured(&kind, address) });
        run.is_told(Verdict::Down, &format!("check {}: no answer within 20ms, 2 of 2", kind.name()));
    }
}

#[test]
fn a_certificate_is_for_the_name_that_is_asked_for() {
    let name = |host: Option<&str>, sni: Option<&str>| {
        let tls = TlsCheck { sni: sni.map(Arc::from), trust: CheckTrust::Host };
        let check = GrpcCheck { service: "".into(), host: host.map(Arc::from), tls: Some(tls) };
        let address: SocketAddr = "[2001:db8::1]:443".parse().unwrap();
        server_name(&CheckKind::Grpc(check), &address.into())
    };
    assert_eq!(&*name(None, None), "2001:db8::1");
    assert_eq!(&*name(Some("a.example:8443"), None), "a.example");
    assert_eq!(&*name(Some("a.example"), None), "a.example");
    assert_eq!(&*name(Some("[::1]:80"), None), "::1");
    assert_eq!(&*name(Some("a.example"), Some("b.example")), "b.example");
}
