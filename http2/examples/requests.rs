//! What a request costs: this engine and the `h2` crate, in one process, from the same bytes to the same answer.
//!
//! A client's bytes are written beforehand. Each side reads them, writes each head down as HTTP/1.1 does, and answers: with
//! a head of some fields and 200 bytes, or as gRPC does, with a message and trailers. Counted is the time that the thread
//! was on a processor.
//!
//! `cargo run --release -p lb-http2 --example requests [ROUNDS]`

use std::{
    cell::RefCell,
    error::Error,
    fs,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use h2::server;
use lb_http2::{By, Code, Connection, Events, FieldWriter, Flaw, Head, Request, Settings, Stream, TooLarge};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

type Outcome<T> = Result<T, Box<dyn Error>>;

type Pairs = &'static [(&'static str, &'static str)];

/// Requests of one kind, and their answers.
struct Scene {
    name: &'static str,
    method: &'static [u8],
    asked: Pairs,
    content: &'static [u8],
    answered: Pairs,
    answer: &'static [u8],
    /// None: the answer ends with its content.
    trailers: Pairs,
}

const SMALL: Scene = Scene {
    name: "small",
    method: b"GET",
    asked: &[
        ("user-agent", "h2load nghttp2/1.59.0"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, deflate, br"),
        ("x-request-id", "0123456789abcdef"),
        ("cookie", "session=0123456789abcdef0123456789abcdef"),
    ],
    content: b"",
    answered: &[
        ("Server", "nginx/1.24.0"),
        ("Date", "Fri, 01 Mar 2024 12:00:00 GMT"),
        ("Content-Type", "application/octet-stream"),
        ("Content-Length", "200"),
        ("Last-Modified", "Fri, 01 Mar 2024 11:00:00 GMT"),
        ("Connection", "keep-alive"),
        ("ETag", "\"65e1b0f0-c8\""),
        ("Accept-Ranges", "bytes"),
        ("Via", "1.1 lb"),
    ],
    answer: &[b'x'; 200],
    trailers: &[],
};

const UNARY: Scene = Scene {
    name: "unary",
    method: b"POST",
    asked: &[
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("grpc-accept-encoding", "gzip"),
        ("user-agent", "grpc-go/1.60.0"),
        ("grpc-timeout", "1S"),
    ],
    content: &[0; 40],
    answered: &[("content-type", "application/grpc"), ("via", "1.1 lb")],
    answer: &[0; 40],
    trailers: &[("grpc-status", "0"), ("grpc-message", "")],
};

/// What a client sends: what it says first, and `rounds` times as many requests as `batch` says.
fn client(scene: &Scene, rounds: usize, batch: usize) -> Outcome<Vec<Vec<u8>>> {
    let mut connection = Connection::client(Settings::default());
    let mut first = Vec::new();
    connection.take_pending(&mut first);
    let mut sent = vec![first];
    for round in 0..rounds {
        let mut bytes = Vec::new();
        for at in 0..batch {
            let path = format!("/files/{}", (round * batch + at) % 1000);
            let request = Request {
                method: scene.method,
                scheme: b"https",
                authority: b"www.example.com",
                path: path.as_bytes(),
                protocol: b"",
            };
            let asked = connection.send_request(&request, scene.content.is_empty(), |fields| {
                for (name, value) in scene.asked {
                    let _ = fields.push(name.as_bytes(), value.as_bytes());
                }
            });
            let id = asked.map_err(|refusal| format!("{refusal:?}"))?;
            bytes.extend_from_slice(connection.pending());
            if !scene.content.is_empty() {
                frame(&mut bytes, 0, 1, id.id(), scene.content);
            }
            // Nobody answers this client; its own end of the stream is of no matter here.
            connection.send_reset(id, Code::CANCEL);
            connection.consume(usize::MAX);
        }
        // One read for all of a round, with the window that its answers take.
        frame(&mut bytes, 8, 0, 0, &((batch * scene.answer.len()) as u32).to_be_bytes());
        sent.push(bytes);
    }
    Ok(sent)
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Heads as HTTP/1.1 has them, and the streams that they came on.
#[derive(Default)]
struct Asked {
    text: Vec<u8>,
    streams: Vec<Stream>,
    held: Vec<(Stream, usize)>,
}

fn push(text: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        text.extend_from_slice(part);
    }
}

impl Events for Asked {
    fn head(&mut self, stream: Stream, head: &Head<'_>, ends: bool) {
        let path = head.path().unwrap_or_default();
        let host = head.authority().unwrap_or_default();
        for part in [head.method(), b" ", path, b" HTTP/1.1\r\nhost: ", host, b"\r\n"] {
            self.text.extend_from_slice(part);
        }
        head.fields().for_each(|field| push(&mut self.text, field.name, field.value));
        if ends {
            self.streams.push(stream);
        }
    }
    fn too_large(&mut self, _: Stream, _: TooLarge, _: bool) {}
    fn data(&mut self, stream: Stream, data: &[u8], ends: bool) {
        self.text.extend_from_slice(data);
        self.held.push((stream, data.len()));
        if ends {
            self.streams.push(stream);
        }
    }
    fn trailers(&mut self, _: Stream, _: &Head<'_>) {}
    fn reset(&mut self, _: Stream, _: Code, _: By) {}
    fn rejected(&mut self, _: u32, _: Flaw) {}
    fn window(&mut self, _: Stream) {}
    fn settings(&mut self) {}
    fn goaway(&mut self, _: u32, _: Code) {}
}

fn push_all(fields: &mut FieldWriter<'_>, pairs: Pairs) {
    for (name, value) in pairs {
        let _ = fields.push(name.as_bytes(), value.as_bytes());
    }
}

/// Bytes that were sent, and those that were written down.
fn engine(scene: &Scene, sent: &[Vec<u8>]) -> Outcome<(usize, usize)> {
    let mut connection = Connection::server(Settings::default());
    let (mut asked, mut out) = (Asked::default(), Vec::new());
    let (mut sent_bytes, mut text_bytes) = (0, 0);
    let (now, ends) = (Instant::now(), scene.trailers.is_empty());
    for bytes in sent {
        connection.receive(bytes, now, &mut asked).map_err(|fault| format!("{fault:?}"))?;
        for (stream, len) in asked.held.drain(..) {
            connection.release(stream, len);
        }
        for stream in asked.streams.drain(..) {
            let answered =
                connection.send_response(stream, 200, false, |fields| push_all(fields, scene.answered));
            answered.map_err(|_| "gone")?;
            connection.send_data(stream, scene.answer, ends).map_err(|_| "gone")?;
            if !ends {
                let ended = connection.send_trailers(stream, |fields| push_all(fields, scene.trailers));
                ended.map_err(|_| "gone")?;
            }
        }
        text_bytes += asked.text.len();
        asked.text.clear();
        connection.take_pending(&mut out);
        sent_bytes += out.len();
    }
    Ok((sent_bytes, text_bytes))
}

/// A wire of which one end is a buffer, and the other is nobody.
#[derive(Clone, Default)]
struct Wire(Rc<RefCell<(Vec<u8>, usize, usize)>>);

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let (bytes, read, _) = &mut *self.0.borrow_mut();
        if *read == bytes.len() {
            return Poll::Pending;
        }
        let len = to.remaining().min(bytes.len() - *read);
        to.put_slice(&bytes[*read..*read + len]);
        *read += len;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.borrow_mut().2 += bytes.len();
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn write_down(request: &http::Request<h2::RecvStream>, text: &mut Vec<u8>) {
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    let host = request.uri().authority().map_or("", |host| host.as_str());
    for part in [request.method().as_str(), " ", path, " HTTP/1.1\r\nhost: ", host, "\r\n"] {
        text.extend_from_slice(part.as_bytes());
    }
    request.headers().iter().for_each(|(name, value)| push(text, name.as_str().as_bytes(), value.as_bytes()));
}

fn map(pairs: Pairs) -> Outcome<http::HeaderMap> {
    let mut map = http::HeaderMap::new();
    for (name, value) in pairs.iter().filter(|(name, _)| *name != "Connection") {
        let name = http::HeaderName::from_bytes(name.as_bytes())?;
        map.append(name, http::HeaderValue::from_bytes(value.as_bytes())?);
    }
    Ok(map)
}

/// A request whose content is awaited, and its answer.
type Awaited = (h2::RecvStream, server::SendResponse<Bytes>);

fn answer(scene: &Scene, (mut content, mut respond): Awaited, text: &mut Vec<u8>) -> Outcome<()> {
    let mut task = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(data)) = content.poll_data(&mut task) {
        let data = data?;
        text.extend_from_slice(&data);
        content.flow_control().release_capacity(data.len())?;
    }
    let mut response = http::Response::new(());
    *response.headers_mut() = map(scene.answered)?;
    let mut stream = respond.send_response(response, false)?;
    stream.reserve_capacity(scene.answer.len());
    stream.send_data(Bytes::copy_from_slice(scene.answer), scene.trailers.is_empty())?;
    if !scene.trailers.is_empty() {
        stream.send_trailers(map(scene.trailers)?)?;
    }
    Ok(())
}

/// The same of the `h2` crate.
fn h2_crate(scene: &Scene, sent: &[Vec<u8>]) -> Outcome<(usize, usize)> {
    let wire = Wire::default();
    let mut task = Context::from_waker(Waker::noop());
    let mut shaking = Box::pin(
        server::Builder::new()
            .initial_window_size(256 << 10)
            .initial_connection_window_size(1 << 20)
            .max_concurrent_streams(1000)
            .handshake::<_, Bytes>(wire.clone()),
    );
    let (mut connection, mut text, mut awaited, mut text_bytes) = (None, Vec::new(), Vec::new(), 0);
    for bytes in sent {
        {
            let (buffer, read, _) = &mut *wire.0.borrow_mut();
            (*read, _) = (0, buffer.clear());
            buffer.extend_from_slice(bytes);
        }
        if connection.is_none() {
            let Poll::Ready(shaken) = shaking.as_mut().poll(&mut task) else { continue };
            connection = Some(shaken?);
        }
        let Some(connection) = &mut connection else { continue };
        while let Poll::Ready(Some(asked)) = connection.poll_accept(&mut task) {
            let (request, respond) = asked?;
            write_down(&request, &mut text);
            awaited.push((request.into_body(), respond));
        }
        // All that came has been read by now.
        for asked in awaited.drain(..) {
            answer(scene, asked, &mut text)?;
        }
        while let Poll::Ready(Some(asked)) = connection.poll_accept(&mut task) {
            drop(asked?);
        }
        text_bytes += text.len();
        text.clear();
    }
    let sent = wire.0.borrow().2;
    Ok((sent, text_bytes))
}

/// Nanoseconds that the thread was on a processor.
fn cpu_ns() -> Outcome<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

type Run = fn(&Scene, &[Vec<u8>]) -> Outcome<(usize, usize)>;

/// By request: nanoseconds, bytes that were sent, bytes that were written down; the middle one of `rounds`, and the
/// shortest and the longest time.
fn measured(
    rounds: usize,
    run: Run,
    scene: &Scene,
    sent: &[Vec<u8>],
) -> Outcome<((u64, usize, usize), u64, u64)> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = cpu_ns()?;
        let (bytes, text) = run(scene, sent)?;
        times.push(((cpu_ns()? - start) / REQUESTS as u64, bytes / REQUESTS, text / REQUESTS));
    }
    times.sort_unstable();
    let (first, last) = (times.first().map_or(0, |time| time.0), times.last().map_or(0, |time| time.0));
    Ok((times.get(times.len() / 2).copied().unwrap_or_default(), first, last))
}

const REQUESTS: usize = 32_000;

fn main() -> Outcome<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(9), |rounds| rounds.parse())?;
    for scene in [SMALL, UNARY] {
        for batch in [1, 4, 32] {
            let sent = client(&scene, REQUESTS / batch, batch)?;
            let (ours, ours_first, ours_last) = measured(rounds, engine, &scene, &sent)?;
            let (theirs, first, last) = measured(rounds, h2_crate, &scene, &sent)?;
            println!(
                "{} {batch:>2} at once: engine {} ns ({ours_first}-{ours_last}), {} B; h2 {} ns ({first}-{last}), {} B; \
                 ratio {:.2}; written down {} and {} B",
                scene.name,
                ours.0,
                ours.1,
                theirs.0,
                theirs.1,
                ours.0 as f64 / theirs.0 as f64,
                ours.2,
                theirs.2,
            );
        }
    }
    Ok(())
}
