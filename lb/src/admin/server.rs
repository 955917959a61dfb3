//! The two doors of the admin API, on an executor of their own.
//!
//! Made to survive whoever connects: one request per connection, a deadline for its head and one for the whole,
//! bounded heads, a bounded number of connections per door. A connection beyond the bound is closed at once.

use std::{
    cell::Cell,
    convert::Infallible,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures_lite::{AsyncRead, AsyncWrite, future};
use glommio::{
    LocalExecutorBuilder, Placement,
    net::{TcpListener, UnixListener},
    timer::sleep,
};
use http_body_util::{Either, Full, StreamBody};
use hyper::{Request, Response, body::Bytes, body::Incoming, header::HeaderValue, service::service_fn};

use super::{
    answer::Answer,
    api::{self, Door},
    capture,
    io::HyperStream,
    show::Readings,
    socket::{self, outlive_predecessor},
    view::View,
};

/// Connections of one door.
const CONNECTIONS_MAX: usize = 64;
/// From accept to a complete head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// From the head to the last byte of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Fields in a head.
const HEAD_FIELDS_MAX: usize = 64;
/// Pause after an accept failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What glommio reserves for storage I/O, of which there is none here; its floor.
pub(crate) const IO_MEMORY: usize = 64 << 10;

/// Where the doors are.
#[derive(Clone, Debug)]
pub struct Doors {
    /// The unix socket.
    pub socket: PathBuf,
    /// The TCP endpoint.
    pub http: Option<SocketAddr>,
}

impl Doors {
    /// Whether both could be opened at this moment. Waits a little for a predecessor that is ending.
    ///
    /// # Errors
    /// One is taken, most likely by another daemon; the message names it.
    pub fn check(&self) -> io::Result<()> {
        outlive_predecessor(|| socket::Placed::prepare(&self.socket))
            .map_err(|error| named(&self.socket.display(), error))?;
        let Some(address) = self.http else { return Ok(()) };
        outlive_predecessor(|| socket::check_unanswered(address)).map_err(|error| named(&address, error))
    }
}

fn named(place: &dyn std::fmt::Display, error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    let cause = match error.kind() {
        io::ErrorKind::AddrInUse => ": another process listens there (is lb running?)",
        _ => "",
    };
    io::Error::other(format!("admin endpoint {place}: {error}{cause}"))
}

/// The running server. Dropping it removes the socket file; the thread ends with the process.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Best effort: a file left behind is recognised as stale by the next start.
        _ = std::fs::remove_file(&self.socket);
    }
}

impl Server {
    /// Opens both doors and serves; returns once both are open.
    ///
    /// # Errors
    /// An address or path cannot be bound (the message names it), or glommio is refused by the host.
    pub fn start(view: Arc<View>, doors: Doors) -> io::Result<Self> {
        let socket = doors.socket.clone();
        let (opened, wait) = flume::bounded(1);
        LocalExecutorBuilder::new(Placement::Unbound)
            .name("lb-admin")
            .io_memory(IO_MEMORY)
            .spawn(move || serve(view, doors, opened))
            .map_err(|error| io::Error::other(format!("admin executor: {error}")))?;
        wait.recv().map_err(|_| io::Error::other("admin executor ended early"))??;
        Ok(Self { socket })
    }
}

async fn serve(view: Arc<View>, doors: Doors, opened: flume::Sender<io::Result<()>>) {
    let (unix, tcp) = match open(&doors) {
        Ok(listeners) => listeners,
        Err(error) => return drop(opened.send(Err(error))),
    };
    drop(opened.send(Ok(())));
    let tcp_view = view.clone();
    let tcp = async move {
        let Some(listener) = tcp else { return };
        let gate = Gate::default();
        loop {
            match listener.accept().await {
                Ok(stream) => gate.admit(stream, &tcp_view, Door::Tcp),
                Err(error) => pause(Door::Tcp, &error).await,
            }
        }
    };
    let unix = async move {
        let gate = Gate::default();
        loop {
            match unix.accept().await {
                Ok(stream) => gate.admit(stream, &view, Door::Unix),
                Err(error) => pause(Door::Unix, &error).await,
            }
        }
    };
    future::zip(unix, tcp).await;
}

fn open(doors: &Doors) -> io::Result<(UnixListener, Option<TcpListener>)> {
    let unix = open_unix(&doors.socket).map_err(|error| named(&doors.socket.display(), error))?;
    let Some(address) = doors.http else { return Ok((unix, None)) };
    // glommio binds with SO_REUSEPORT: without this a second daemon would silently share the port.
    socket::check_unanswered(address).map_err(|error| named(&address, error))?;
    let tcp = TcpListener::bind(address).map_err(|error| named(&address, error))?;
    Ok((unix, Some(tcp)))
}

fn open_unix(path: &Path) -> io::Result<UnixListener> {
    let place = socket::Placed::prepare(path)?;
    let listener = UnixListener::bind(place.temporary()).map_err(io::Error::from)?;
    place.publish()?;
    Ok(listener)
}

async fn pause(door: Door, error: &dyn std::fmt::Display) {
    tracing::warn!(?door, %error, "admin: accept failed");
    sleep(ACCEPT_PAUSE).await;
}

/// Counts the connections of one door.
#[derive(Default)]
struct Gate {
    open: Rc<Cell<usize>>,
}

impl Gate {
    fn admit<S>(&self, stream: S, view: &Arc<View>, door: Door)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        if self.open.get() >= CONNECTIONS_MAX {
            return;
        }
        self.open.set(self.open.get() + 1);
        let (open, view) = (self.open.clone(), view.clone());
        glommio::spawn_local(async move {
            serve_connection(stream, view, door).await;
            open.set(open.get() - 1);
        })
        .detach();
    }
}

/// Serves one request. Deadlines are ours: hyper's want a timer that can change threads, and glommio's cannot.
async fn serve_connection<S>(stream: S, view: Arc<View>, door: Door)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let stage = Rc::new(Cell::new(Stage::Waiting));
    let service = {
        let stage = stage.clone();
        service_fn(move |request: Request<Incoming>| {
            stage.set(Stage::Answering);
            let (view, stage) = (view.clone(), stage.clone());
            async move {
                let response = handle(request, &view, door).await;
                if matches!(response.body(), Either::Right(_)) {
                    stage.set(Stage::Streaming);
                }
                Ok::<_, Infallible>(response)
            }
        })
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEAD_FIELDS_MAX)
        .serve_connection(HyperStream(stream), service);
    let deadline = async {
        sleep(HEAD_TIMEOUT).await;
        if stage.get() != Stage::Waiting {
            sleep(ANSWER_TIMEOUT).await;
        }
        // A stream has its own end; whoever feeds it gives up a client that takes nothing.
        if stage.get() == Stage::Streaming {
            future::pending::<()>().await;
        }
        Ok(())
    };
    if let Err(error) = future::or(connection, deadline).await {
        tracing::debug!(?door, %error, "admin: connection ended early");
    }
}

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Answering,
    Streaming,
}

/// An answer, or a stream.
type Body = Either<Full<Bytes>, StreamBody<capture::Chunks>>;

async fn handle(request: Request<Incoming>, view: &Arc<View>, door: Door) -> Response<Body> {
    let accepted = match api::accept(door, request.method(), request.uri(), request.headers(), view) {
        Ok(accepted) => accepted,
        Err(refusal) => return response(refusal),
    };
    match (&view.packets, accepted.wish()) {
        (Some(source), Some(wish)) => match source.capture(wish).await {
            Ok(feed) => streamed(capture::pcapng(view.clone(), feed, wish.filter.snap)),
            Err(refusal) => response(api::refused(&refusal, "capture")),
        },
        _ => response(answer(accepted, view).await),
    }
}

async fn answer(accepted: api::Accepted, view: &View) -> Answer {
    let packets = match &view.packets {
        Some(source) if accepted.needs_packets() => source.read().await,
        _ => None,
    };
    let flows = match &view.packets {
        Some(source) if accepted.needs_flows() => source.read_flows().await,
        _ => None,
    };
    let why = match (&view.packets, accepted.question()) {
        (Some(source), Some(question)) => source.ask_why(question).await,
        _ => Ok(None),
    };
    let why = why.as_ref().map(Option::as_ref);
    api::answer(accepted, view, Readings { packets: packets.as_ref(), flows: flows.as_ref(), why })
}

fn streamed(chunks: capture::Chunks) -> Response<Body> {
    let mut response = Response::new(Either::Right(StreamBody::new(chunks)));
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static(capture::CONTENT_TYPE));
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    response
}

fn response(answer: Answer) -> Response<Body> {
    let mut response = Response::builder()
        .status(answer.status)
        .header("content-type", answer.content_type)
        .header("cache-control", "no-store")
        .header("x-content-type-options", "nosniff");
    if answer.status == 405 {
        response = response.header("allow", "GET");
    }
    // Every part is one of our own constants, so this cannot fail; an empty answer is still an answer.
    response.body(Full::from(answer.body)).unwrap_or_default().map(Either::Left)
}
