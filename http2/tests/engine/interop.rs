//! Against the `h2` crate, either way.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::pin,
    time::Instant,
};

use bytes::Bytes;
use h2::{Reason, client, server};
use lb_http2::{By, Code, Connection, Events, Flaw, Head, Request, Settings, Stream, TooLarge};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const WIRE_BYTES: usize = 4 << 20;
/// Windows that bodies do not fit in.
const TIGHT: Settings = Settings {
    streams_max: 100,
    stream_window: 1000,
    connection_window: 70_000,
    head_bytes_max: 64 << 10,
    head_fields_max: 132,
    table_bytes_max: 256,
    out_bytes_max: 5000,
    allows_protocols: true,
    budgets: lb_http2::Budgets::DEFAULT,
};

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Whoever has streams: what is to be sent on each, and what has come.
#[derive(Default)]
struct App {
    streams: HashMap<u32, Job>,
    goaway: Option<(u32, Code)>,
}

#[derive(Default)]
struct Job {
    stream: Option<Stream>,
    path: String,
    fields: Vec<(String, String)>,
    /// Heads that came, by status.
    statuses: Vec<u16>,
    came: Vec<u8>,
    trailers: Option<Vec<(String, String)>>,
    has_ended: bool,
    reset: Option<(Code, By)>,
    to_release: usize,
    is_answered: bool,
    to_send: Vec<u8>,
    has_sent: bool,
}

fn fields(head: &Head<'_>) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    head.fields().map(|field| (text(field.name), text(field.value))).collect()
}

impl App {
    fn job(&mut self, stream: Stream) -> &mut Job {
        let job = self.streams.entry(stream.id()).or_default();
        job.stream = Some(stream);
        job
    }
}

impl Events for App {
    fn head(&mut self, stream: Stream, head: &Head<'_>, ends: bool) {
        let job = self.job(stream);
        job.path = String::from_utf8(head.path().unwrap_or_default().to_vec()).unwrap();
        job.statuses.push(head.status());
        job.fields = fields(head);
        job.has_ended = ends;
    }
    fn too_large(&mut self, _: Stream, _: TooLarge, _: bool) {
        panic!("too large");
    }
    fn data(&mut self, stream: Stream, data: &[u8], ends: bool) {
        let job = self.job(stream);
        job.came.extend_from_slice(data);
        job.to_release += data.len();
        job.has_ended = ends;
    }
    fn trailers(&mut self, stream: Stream, trailers: &Head<'_>) {
        let job = self.job(stream);
        job.trailers = Some(fields(trailers));
        job.has_ended = true;
    }
    fn reset(&mut self, stream: Stream, code: Code, by: By) {
        self.job(stream).reset = Some((code, by));
    }
    fn rejected(&mut self, _: u32, flaw: Flaw) {
        panic!("{flaw:?}");
    }
    fn window(&mut self, _: Stream) {}
    fn settings(&mut self) {}
    fn goaway(&mut self, last: u32, code: Code) {
        self.goaway = Some((last, code));
    }
}

/// Drives a connection until `act` says that it is done, or its wire ends.
async fn drive(
    mut connection: Connection,
    mut wire: DuplexStream,
    mut act: impl FnMut(&mut Connection, &mut App) -> bool,
) -> App {
    let (mut app, mut buffer) = (App::default(), [0; 3000]);
    loop {
        loop {
            for job in app.streams.values_mut() {
                if let Some(stream) = job.stream {
                    connection.release(stream, std::mem::take(&mut job.to_release));
                }
            }
            let is_done = act(&mut connection, &mut app);
            let len = connection.pending().len();
            if len == 0 {
                break;
            }
            if wire.write_all(connection.pending()).await.is_err() {
                return app;
            }
            connection.consume(len);
            connection.resume(&mut app);
            if is_done {
                return app;
            }
        }
        match wire.read(&mut buffer).await {
            Ok(0) | Err(_) => return app,
            Ok(len) => connection.receive(&buffer[..len], Instant::now(), &mut app).unwrap(),
        }
    }
}

/// Answers as paths say.
fn answer(connection: &mut Connection, app: &mut App) -> bool {
    for job in app.streams.values_mut() {
        let Some(stream) = job.stream.filter(|_| job.has_ended && job.reset.is_none() && !job.has_sent)
        else {
            continue;
        };
        if !job.is_answered {
            job.is_answered = true;
            if job.path == "/reset" {
                connection.send_reset(stream, Code::INTERNAL_ERROR);
                job.has_sent = true;
                continue;
            }
            if job.path == "/interim" {
                connection
                    .send_response(stream, 103, false, |out| out.push(b"link", b"</a>").unwrap())
                    .unwrap();
            }
            job.to_send = std::mem::take(&mut job.came);
            let echoed = std::mem::take(&mut job.fields);
            let length = job.to_send.len().to_string();
            connection
                .send_response(stream, 200, false, |out| {
                    for (name, value) in &echoed {
                        out.push(format!("X-{name}").as_bytes(), value.as_bytes()).unwrap();
                    }
                    out.push(b"Content-Length", length.as_bytes()).unwrap();
                })
                .unwrap();
        }
        let ends = job.path != "/trailers";
        let sent = connection.send_data(stream, &job.to_send, ends).unwrap();
        job.to_send.drain(..sent);
        if job.to_send.is_empty() {
            job.has_sent = true;
            if !ends {
                connection.send_trailers(stream, |out| out.push(b"grpc-status", b"0").unwrap()).unwrap();
            }
        }
    }
    false
}

fn body(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// Sends all of it as windows let.
async fn send_all(stream: &mut h2::SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|task| stream.poll_capacity(task)).await.unwrap().unwrap();
        stream.send_data(data.split_to(room.min(data.len())), false).unwrap();
    }
    stream.send_data(Bytes::new(), true).unwrap();
}

async fn read_all(stream: &mut h2::RecvStream) -> (Vec<u8>, Option<http::HeaderMap>) {
    let mut came = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        came.extend_from_slice(&data);
    }
    (came, stream.trailers().await.unwrap())
}

async fn ask_our_server(settings: Settings, window: u32) {
    let (wire, theirs) = duplex(WIRE_BYTES);
    let serving = tokio::spawn(drive(Connection::server(settings), wire, answer));
    let (requests, connection) = client::Builder::new()
        .initial_window_size(window)
        .header_table_size(200)
        .handshake(theirs)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    for (path, len) in
        [("/echo", 0), ("/echo", 5), ("/trailers", 100), ("/echo", 300_000), ("/interim", 70_000)]
    {
        let mut requests = requests.clone().ready().await.unwrap();
        let value = "v".repeat(len / 100);
        let request = http::Request::post(format!("https://a.example{path}"))
            .header("name", "a value")
            .header("authorization", "secret")
            .header("long", &value);
        let (mut response, mut stream) = requests.send_request(request.body(()).unwrap(), false).unwrap();
        send_all(&mut stream, body(len).into()).await;
        if path == "/interim" {
            let interim = poll_fn(|task| response.poll_informational(task)).await.unwrap().unwrap();
            assert_eq!(
                (interim.status(), &interim.headers()["link"]),
                (http::StatusCode::EARLY_HINTS, &"</a>".parse().unwrap())
            );
        }
        let mut response = response.await.unwrap();
        assert_eq!(response.headers()["x-name"], "a value");
        assert_eq!(response.headers()["x-long"], value);
        assert_eq!(response.headers()["content-length"], len.to_string());
        let (came, trailers) = read_all(response.body_mut()).await;
        assert!(came == body(len), "{} bytes of {len}", came.len());
        assert_eq!(trailers.is_some(), path == "/trailers");
    }
    let mut requests = requests.ready().await.unwrap();
    let request = http::Request::get("https://a.example/reset").body(()).unwrap();
    let error = requests.send_request(request, true).unwrap().0.await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    drop(requests);
    connection.await.unwrap().unwrap();
    serving.await.unwrap();
}

#[test]
fn their_client_and_our_server() {
    run(async {
        ask_our_server(Settings::default(), 1 << 20).await;
        ask_our_server(TIGHT, 1 << 20).await;
        ask_our_server(TIGHT, 100).await;
        ask_our_server(Settings::default(), 777).await;
    });
}

#[test]
fn many_at_once() {
    run(async {
        let (wire, theirs) = duplex(WIRE_BYTES);
        let serving = tokio::spawn(drive(Connection::server(Settings::default()), wire, answer));
        let (requests, connection) = client::handshake(theirs).await.unwrap();
        let connection = tokio::spawn(connection);
        let tasks: Vec<_> = (0..250)
            .map(|at| {
                let requests = requests.clone();
                tokio::spawn(async move {
                    let mut requests = requests.ready().await.unwrap();
                    let request = http::Request::post("http://a/echo").header("at", at.to_string());
                    let (response, mut stream) =
                        requests.send_request(request.body(()).unwrap(), false).unwrap();
                    send_all(&mut stream, body(at * 40).into()).await;
                    let mut response = response.await.unwrap();
                    assert_eq!(response.headers()["x-at"], at.to_string());
                    assert!(read_all(response.body_mut()).await.0 == body(at * 40));
                })
            })
            .collect();
        drop(requests);
        for task in tasks {
            task.await.unwrap();
        }
        connection.await.unwrap().unwrap();
        serving.await.unwrap();
    });
}

#[test]
fn our_server_ends_gracefully() {
    run(async {
        let (wire, theirs) = duplex(WIRE_BYTES);
        let serving =
            tokio::spawn(drive(Connection::server(Settings::default()), wire, |connection, app| {
                if app.streams.len() == 2 {
                    connection.shutdown();
                }
                answer(connection, app);
                connection.is_over()
            }));
        let (requests, connection) = client::handshake(theirs).await.unwrap();
        let connection = tokio::spawn(connection);
        for _ in 0..2 {
            let mut requests = requests.clone().ready().await.unwrap();
            let request = http::Request::get("http://a/echo").body(()).unwrap();
            assert_eq!(requests.send_request(request, true).unwrap().0.await.unwrap().status(), 200);
        }
        serving.await.unwrap();
        connection.await.unwrap().unwrap();
    });
}

/// Echoes as `/trailers` does, with a head between; `/reset` is reset, and `/end` ends the connection.
async fn their_server(wire: DuplexStream, window: u32) {
    let mut building = server::Builder::new();
    building.initial_window_size(window).max_concurrent_streams(10).header_table_size(100);
    let mut connection = building.handshake::<_, Bytes>(wire).await.unwrap();
    while let Some(asked) = connection.accept().await {
        let (mut request, mut respond) = asked.unwrap();
        if request.uri().path() == "/end" {
            connection.graceful_shutdown();
        }
        tokio::spawn(async move {
            if request.uri().path() == "/reset" {
                respond.send_reset(Reason::REFUSED_STREAM);
                return;
            }
            let (came, _) = read_all(request.body_mut()).await;
            let hints = http::Response::builder().status(103).body(()).unwrap();
            respond.send_informational(hints).unwrap();
            let mut response = http::Response::builder().header("content-length", came.len());
            for (name, value) in request.headers() {
                response = response.header(format!("x-{name}"), value);
            }
            let mut stream = respond.send_response(response.body(()).unwrap(), false).unwrap();
            let mut data = Bytes::from(came);
            while !data.is_empty() {
                stream.reserve_capacity(data.len());
                let room = poll_fn(|task| stream.poll_capacity(task)).await.unwrap().unwrap();
                stream.send_data(data.split_to(room.min(data.len())), false).unwrap();
            }
            let trailers = [("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter();
            stream.send_trailers(trailers.collect::<http::HeaderMap>()).unwrap();
        });
    }
}

/// Asks for each of these, all at once, with a body of so many bytes.
async fn ask_their_server(settings: Settings, window: u32, asked: &[(&str, usize)]) -> App {
    let (wire, theirs) = duplex(WIRE_BYTES);
    let serving = their_server(theirs, window);
    let mut left: Vec<_> = asked.iter().rev().copied().collect();
    let client = drive(Connection::client(settings), wire, move |connection, app| {
        while connection.has_settings()
            && connection.can_ask().is_ok()
            && let Some((path, len)) = left.pop()
        {
            let (path, value) = (path.as_bytes(), "v".repeat(len / 100));
            let request =
                Request { method: b"POST", scheme: b"http", authority: b"a.example", path, protocol: b"" };
            let asked = connection.send_request(&request, false, |out| {
                out.push(b"Name", b"a value").unwrap();
                out.push(b"Host", b"left out").unwrap();
                out.push(b"Long", value.as_bytes()).unwrap();
            });
            app.job(asked.unwrap()).to_send = body(len);
        }
        for job in app.streams.values_mut().filter(|job| !job.has_sent && job.reset.is_none()) {
            let Some(stream) = job.stream else { continue };
            let Ok(sent) = connection.send_data(stream, &job.to_send, true) else { continue };
            job.to_send.drain(..sent);
            job.has_sent = job.to_send.is_empty();
        }
        let is_done = left.is_empty() && connection.streams() == 0;
        if is_done {
            connection.shutdown();
        }
        is_done
    });
    let mut serving = pin!(serving);
    let mut client = pin!(client);
    poll_fn(|task| {
        let _ = serving.as_mut().poll(task);
        client.as_mut().poll(task)
    })
    .await
}

#[test]
fn our_client_and_their_server() {
    let asked = [("/a", 0), ("/b", 5), ("/reset", 0), ("/c", 300_000), ("/d", 70_000)].repeat(5);
    for (settings, window) in
        [(Settings::default(), 1 << 20), (TIGHT, 1 << 20), (TIGHT, 777), (Settings::default(), 1000)]
    {
        let app = run(ask_their_server(settings, window, &asked));
        assert_eq!(app.streams.len(), asked.len());
        for (at, (path, len)) in asked.iter().enumerate() {
            let job = &app.streams[&(2 * at as u32 + 1)];
            if *path == "/reset" {
                assert_eq!(job.reset, Some((Code::REFUSED_STREAM, By::Peer)));
                continue;
            }
            assert_eq!(job.statuses, [103, 200]);
            assert!(job.came == body(*len) && job.has_ended, "{path}: {} of {len}", job.came.len());
            assert_eq!(job.trailers.as_deref(), Some(&[("grpc-status".to_owned(), "0".to_owned())][..]));
            assert!(job.fields.contains(&("x-name".to_owned(), "a value".to_owned())), "{:?}", job.fields);
            assert!(job.fields.contains(&("x-long".to_owned(), "v".repeat(len / 100))));
        }
    }
}

#[test]
fn their_server_ends() {
    let app = run(ask_their_server(Settings::default(), 1 << 20, &[("/a", 5), ("/end", 5)]));
    assert_eq!(app.streams.values().filter(|job| job.statuses == [103, 200]).count(), 2);
    assert!(app.goaway.is_some());
}
