//! A request on a kept connection costs no heap: an allocator of our own counts, and so whatever else this program did meanwhile
//! would be counted, too.
#![expect(clippy::unwrap_used, reason = "a test: what does not hold ends it")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use lb::{
    config::{BackendIds, Snapshot, parse},
    health::HealthTable,
    limits::Admission,
    metrics::BACKENDS_MAX,
    model::{Generation, GroupId, ListenerId, WorkerId},
    sys::affinity,
    worker::{BoundListener, Command, Compiled, Handle, Setup, Siblings, TlsParts},
};
use lb_tests::counting::{self, Counting};

#[global_allocator]
static HEAP: Counting = Counting;

/// Until every buffer, room and table has the size that it keeps.
const WARM_UP: usize = 500;
const REQUESTS: usize = 2000;
/// What may come with time, not with requests: a place of the timer wheel that was never used before.
const ALLOWED: u64 = 3;

/// Answers each request with the same bytes; a request ends with `end`.
fn backend(answer: Vec<u8>, end: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        counting::leave_out_this_thread();
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            thread::spawn(move || {
                counting::leave_out_this_thread();
                let mut request = Vec::new();
                let mut piece = [0; 65_536];
                while let Ok(len @ 1..) = stream.read(&mut piece) {
                    request.extend_from_slice(&piece[..len]);
                    if request.ends_with(end) {
                        request.clear();
                        stream.write_all(&answer).unwrap();
                    }
                }
            });
        }
    });
    address
}

fn start(route: &str, backend: SocketAddr) -> (Handle, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let text = format!(
        "version = 1\n[listener.web]\nbind = [\"{address}\"]\nprotocol = \"http\"\npool = \"p\"\n{route}\n[pool.p]\nbackends = [\"{backend}\"]\n"
    );
    let config = parse("test", &text).unwrap().config;
    let handle = Handle::start(Setup {
        id: WorkerId(0),
        core: affinity::allowed_cores().unwrap()[0],
        compiled: Compiled::new(
            Arc::new(Snapshot::build(&config, Generation(1), &mut BackendIds::new()).unwrap()),
            &TlsParts::default(),
        ),
        health: Arc::new(HealthTable::new(BACKENDS_MAX)),
        admission: Admission::new(),
        siblings: Siblings::new(1, 1).unwrap(),
        access_log: None,
        kernel_suites: lb::tls::KernelSuites::default(),
        listeners: vec![BoundListener {
            group: GroupId(0),
            place: 0,
            listener: ListenerId(0),
            socket: socket.into(),
        }],
    })
    .unwrap();
    (handle, address)
}

/// What `REQUESTS` requests cost the worker, after the warm-up.
fn cost(route: &str, request: &[u8], request_end: &'static [u8], answer: &str, received: usize) -> u64 {
    let (handle, address) = start(route, backend(answer.as_bytes().to_vec(), request_end));
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut response = vec![0; received];
    let mut ask = |times: usize| {
        for _ in 0..times {
            stream.write_all(request).unwrap();
            let mut got = 0;
            while got < received {
                let len = stream.read(&mut response[got..]).unwrap();
                assert!(len > 0, "closed after {got} bytes: {}", String::from_utf8_lossy(&response[..got]));
                got += len;
            }
        }
    };
    ask(WARM_UP);
    let before = counting::allocations();
    ask(REQUESTS);
    let cost = counting::allocations() - before;
    assert!(before > 100, "an allocator that counts: {before} until then");
    assert!(response.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&response));
    handle.send(Command::Stop);
    handle.join().unwrap();
    cost
}

/// What it is, the route, a request and how it ends, the answer.
type Row<'a> = (&'a str, &'a str, &'a [u8], &'static [u8], &'a str);

/// One test: whatever else this program did meanwhile would be counted.
#[test]
fn a_request_on_a_kept_connection_costs_no_heap() {
    counting::leave_out_this_thread();
    let via = "Via: 1.1 lb\r\n";
    let small = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n{}", "x".repeat(40_000));
    let get = b"GET /a/b?c HTTP/1.1\r\nHost: a.test\r\nUser-Agent: x\r\nAccept: */*\r\nCookie: a=b\r\n\r\n";
    let post = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nsome body";
    let routed = "[route.r]\nlistener = \"web\"\nhost = [\"a.test\"]\npath = \"/{x}/*\"\npool = \"p\"\nidle = \"5s\"\n\
        retry = { on = [\"503\"] }\nrate_limit = { rate = \"1000000/s\", burst = 1000000, key = \"address\" }\n\
        rewrite = { path = \"/new/*\" }\n[route.r.set_headers]\nresponse = { remove = [\"Server\"] }\n";
    let put = b"PUT /a/b HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n5\r\n body\r\n0\r\n\r\n";
    let rows: [Row<'_>; 6] = [
        ("GET, small answer", "", get, b"\r\n\r\n", small),
        ("GET, chunked answer", "", get, b"\r\n\r\n", chunked),
        ("GET, 40 kB", "", get, b"\r\n\r\n", &large),
        ("POST, small", "", post, b"some body", small),
        ("a route with everything", routed, get, b"\r\n\r\n", small),
        ("PUT, small, kept to be sent again", routed, put, b"0\r\n\r\n", small),
    ];
    for (what, route, request, end, answer) in rows {
        let cost = cost(route, request, end, answer, answer.len() + via.len());
        assert!(cost <= ALLOWED, "{what}: {cost} allocations in {REQUESTS} requests");
    }
}
