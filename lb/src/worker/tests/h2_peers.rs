//! What speaks HTTP/2 with the code under test, over real sockets that are polled until they give.

use std::{
    future::{Future, poll_fn},
    io::{self, Read, Write},
    net::TcpStream,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
pub(super) use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream, client, ext::Protocol};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::PATIENCE;

/// A socket for who polls it again and again.
struct Polled(TcpStream);

fn polled<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        other => Poll::Ready(other),
    }
}

impl AsyncRead for Polled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = polled(self.0.read(buffer.initialize_unfilled()));
        read.map_ok(|len| buffer.advance(len))
    }
}

impl AsyncWrite for Polled {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        polled(self.0.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A client's connection; whatever is awaited goes on together with it.
pub(super) struct Client {
    requests: client::SendRequest<Bytes>,
    connection: Pin<Box<client::Connection<Polled, Bytes>>>,
    has_ended: bool,
}

/// Polls it until it is done.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut task = Context::from_waker(Waker::noop());
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut task) {
            return done;
        }
        assert!(Instant::now() < deadline, "waited in vain");
        thread::sleep(Duration::from_micros(200));
    }
}

impl Client {
    pub(super) fn new(socket: TcpStream) -> Self {
        socket.set_nonblocking(true).unwrap();
        let (requests, connection) = wait(client::handshake(Polled(socket))).unwrap();
        Self { requests, connection: Box::pin(connection), has_ended: false }
    }

    pub(super) fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        let Self { connection, has_ended, .. } = self;
        let mut future = pin!(future);
        wait(poll_fn(|task| {
            if !*has_ended && connection.as_mut().poll(task).is_ready() {
                *has_ended = true;
            }
            future.as_mut().poll(task)
        }))
    }

    pub(super) fn begin(&mut self, request: Request<()>, body: Option<Bytes>) -> ResponseFuture {
        let (response, mut stream) = self.requests.send_request(request, body.is_none()).unwrap();
        if let Some(body) = body {
            stream.send_data(body, true).unwrap();
        }
        response
    }

    /// With fields behind the body.
    pub(super) fn begin_with_trailers(
        &mut self,
        request: Request<()>,
        body: Bytes,
        fields: HeaderMap,
    ) -> ResponseFuture {
        let (response, mut stream) = self.requests.send_request(request, false).unwrap();
        stream.send_data(body, false).unwrap();
        stream.send_trailers(fields).unwrap();
        response
    }

    /// Asks for a tunnel, once the server has said that it may: what goes there, and what is answered.
    pub(super) fn connect(&mut self, protocol: &str) -> (SendStream<Bytes>, ResponseFuture) {
        let requests = self.requests.clone();
        let may = || requests.is_extended_connect_protocol_enabled();
        self.run(poll_fn(|_| if may() { Poll::Ready(()) } else { Poll::Pending }));
        let request = Request::connect("http://a.test/chat").extension(Protocol::from(protocol));
        let (response, stream) =
            self.requests.send_request(request.header("x", "y").body(()).unwrap(), false).unwrap();
        (stream, response)
    }

    pub(super) fn get(&mut self, path: &str) -> (Response<()>, Vec<u8>) {
        let request = Request::get(format!("http://a.test{path}")).body(()).unwrap();
        let response = self.begin(request, None);
        self.finish(response)
    }

    pub(super) fn finish(&mut self, response: ResponseFuture) -> (Response<()>, Vec<u8>) {
        let (head, mut body) = self.run(response).unwrap().into_parts();
        let bytes = self.run(read(&mut body)).unwrap();
        (Response::from_parts(head, ()), bytes)
    }

    /// How the connection ends.
    pub(super) fn end(&mut self) -> Result<(), h2::Error> {
        wait(self.connection.as_mut())
    }
}

pub(super) async fn read(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        bytes.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    Ok(bytes)
}

/// Serves a connection of a client to its end: says back what it was asked, and trailers behind that, those too that it
/// was told.
pub(super) fn serve(socket: TcpStream) {
    socket.set_nonblocking(true).unwrap();
    let shaking = h2::server::Builder::new().enable_connect_protocol().handshake(Polled(socket));
    let Ok(mut connection) = wait(shaking) else { return };
    let mut answers: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
    let mut task = Context::from_waker(Waker::noop());
    loop {
        answers.retain_mut(|answer| answer.as_mut().poll(&mut task).is_pending());
        match connection.poll_accept(&mut task) {
            Poll::Ready(Some(Ok((request, respond)))) => answers.push(Box::pin(answer(request, respond))),
            Poll::Ready(_) => return,
            Poll::Pending => thread::sleep(Duration::from_micros(100)),
        }
    }
}

async fn answer(request: Request<RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let (head, mut body) = request.into_parts();
    if head.method == http::Method::CONNECT {
        let asked = head.extensions.get::<Protocol>().map(Protocol::as_str);
        assert_eq!((asked, head.headers.get("sec-websocket-key")), (Some("websocket"), None));
        let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
        let _ = stream.send_data(Bytes::from_static(b"hello"), false);
        let Ok(bytes) = read(&mut body).await else { return };
        let _ = stream.send_data(bytes.into(), true);
        return;
    }
    if head.uri.path() == "/early" {
        // The rest of the question is given up with the answer's end.
        if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
            let _ = stream.send_data(Bytes::from_static(b"early"), true);
        }
        return;
    }
    let Ok(mut bytes) = read(&mut body).await else { return };
    let Ok(asked) = body.trailers().await else { return };
    if bytes.is_empty() {
        bytes = format!("{} {} {:?}", head.method, head.uri, head.headers.get("te")).into_bytes();
    }
    let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
    for piece in bytes.chunks(16 << 10) {
        stream.reserve_capacity(piece.len());
        let mut left = Bytes::copy_from_slice(piece);
        while !left.is_empty() {
            let room = match stream.capacity() {
                0 => match poll_fn(|task| stream.poll_capacity(task)).await {
                    Some(Ok(_)) => continue,
                    _ => return,
                },
                room => room.min(left.len()),
            };
            if stream.send_data(left.split_to(room), false).is_err() {
                return;
            }
        }
    }
    let mut trailers = asked.unwrap_or_default();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let _ = stream.send_trailers(trailers);
}
