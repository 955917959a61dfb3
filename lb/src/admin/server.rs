//! The two doors of the admin API, on an executor of their own.
//!
//! Made to survive whoever connects: one request per connection, a deadline for its head and one for the whole,
//! bounded heads, a bounded number of connections per door. A connection beyond the bound is closed at once.

use std::{cell::Cell, convert::Infallible, io, rc::Rc, time::Duration};

use futures_lite::{AsyncRead, AsyncWrite, future};
use glommio::{LocalExecutorBuilder, Placement, net::TcpListener, timer::sleep};
use http_body_util::{Either, Full, StreamBody};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::{HeaderName, HeaderValue},
    service::service_fn,
};

use super::{
    answer::Answer,
    api::{self, Accepted, Door},
    capture,
    change::{self, Bodies},
    changes,
    doors::{Doors, OpenDoors},
    handle,
    handle::ServerHandle,
    io::HyperStream,
    show::Readings,
    view::{View, Views},
};
use crate::sys::{self, Peer};

/// Connections of one door.
const CONNECTIONS_MAX: usize = 64;
/// From accept to a complete head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// From the head to the last byte of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// What a change may take longer: its body, and everything until it is answered.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10 + changes::ANSWER_TIMEOUT.as_secs());
/// Bytes of a head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Fields in a head.
const HEAD_FIELDS_MAX: usize = 64;
/// Pause after an accept failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What glommio reserves for storage I/O, of which there is none here; its floor.
pub(crate) const IO_MEMORY: usize = 64 << 10;

/// The running server. Dropping it removes the socket file, unless another process serves there; the thread ends with
/// the process.
#[derive(Debug)]
pub struct Server(ServerHandle);

impl Drop for Server {
    fn drop(&mut self) {
        if !self.0.has_retired() {
            // Best effort: a file left behind is recognised as stale by the next start.
            _ = std::fs::remove_file(self.0.socket());
        }
    }
}

impl Server {
    /// Opens both doors and serves; returns once both are open.
    ///
    /// # Errors
    /// An address or path cannot be bound (the message names it), or glommio is refused by the host.
    pub fn start(views: impl Into<Views>, doors: Doors) -> io::Result<Self> {
        let open = doors.open()?;
        let (go, may_go) = flume::bounded(1);
        drop(go);
        Self::start_at(views, doors, open, may_go)
    }

    /// Serves at doors that are open already, once `may_go` says so or nobody is left to say it.
    ///
    /// # Errors
    /// A descriptor is not to be had, or glommio is refused by the host.
    pub fn start_at(
        views: impl Into<Views>,
        doors: Doors,
        open: OpenDoors,
        may_go: flume::Receiver<()>,
    ) -> io::Result<Self> {
        let views = views.into();
        let (handle, served) = handle::of(&doors, &open)?;
        let (started, wait) = flume::bounded(1);
        LocalExecutorBuilder::new(Placement::Unbound)
            .name("lb-admin")
            .io_memory(IO_MEMORY)
            .spawn(move || async move {
                _ = started.send(());
                _ = may_go.recv_async().await;
                serve(views, open, served).await;
            })
            .map_err(|error| io::Error::other(format!("admin executor: {error}")))?;
        wait.recv().map_err(|_| io::Error::other("admin executor ended early"))?;
        Ok(Self(handle))
    }

    /// For who hands it over.
    pub fn handle(&self) -> ServerHandle {
        self.0.clone()
    }
}

async fn serve(views: Views, open: OpenDoors, served: handle::Served) {
    let (unix, tcp): (Listener, Option<Listener>) = (sys::adopt(open.unix), open.tcp.map(sys::adopt));
    let (tcp_views, tcp_served) = (views.clone(), served.clone());
    let tcp = async move {
        let Some(listener) = tcp else { return };
        let gate = Gate::new(Door::Tcp, tcp_views, tcp_served);
        while !gate.served.has_retired() {
            match listener.accept().await {
                Ok(stream) => gate.admit(stream, None),
                Err(error) => pause(Door::Tcp, &error).await,
            }
        }
    };
    let unix_served = served.clone();
    let unix = async move {
        let gate = Gate::new(Door::Unix, views, unix_served);
        while !gate.served.has_retired() {
            match unix.accept().await {
                Ok(stream) => {
                    let peer = sys::peer(&stream).ok();
                    gate.admit(stream, peer);
                }
                Err(error) => pause(Door::Unix, &error).await,
            }
        }
    };
    future::zip(unix, tcp).await;
    served.left();
    // Whoever was let in before is answered still.
    future::pending::<()>().await;
}

/// Of both doors: glommio's listener of unix sockets gives streams that hide their descriptors, and with them their
/// peers; that of TCP does nothing that is TCP's alone.
type Listener = TcpListener;

async fn pause(door: Door, error: &dyn std::fmt::Display) {
    tracing::warn!(?door, %error, "admin: accept failed");
    sleep(ACCEPT_PAUSE).await;
}

/// Counts the connections of one door, and the bytes that wait there.
struct Gate {
    door: Door,
    views: Views,
    open: Rc<Cell<usize>>,
    bodies: Bodies,
    served: handle::Served,
}

impl Gate {
    fn new(door: Door, views: Views, served: handle::Served) -> Self {
        Self { door, views, open: Rc::default(), bodies: Bodies::default(), served }
    }

    fn admit<S>(&self, stream: S, peer: Option<Peer>)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        if self.open.get() >= CONNECTIONS_MAX {
            return;
        }
        self.open.set(self.open.get() + 1);
        let open = self.open.clone();
        let busy = self.served.begin();
        let caller = Caller { door: self.door, peer, views: self.views.clone(), bodies: self.bodies.clone() };
        glommio::spawn_local(async move {
            serve_connection(stream, caller).await;
            open.set(open.get() - 1);
            drop(busy);
        })
        .detach();
    }
}

/// Who asks, and what for.
#[derive(Clone)]
struct Caller {
    door: Door,
    peer: Option<Peer>,
    views: Views,
    bodies: Bodies,
}

/// Serves one request. Deadlines are ours: hyper's want a timer that can change threads, and glommio's cannot.
async fn serve_connection<S>(stream: S, caller: Caller)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (stage, door) = (Rc::new(Cell::new(Stage::Waiting)), caller.door);
    let service = {
        let stage = stage.clone();
        service_fn(move |request: Request<Incoming>| {
            stage.set(Stage::Answering);
            let (caller, stage) = (caller.clone(), stage.clone());
            async move {
                let response = handle(request, caller, &stage).await;
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
        if stage.get() == Stage::Changing {
            sleep(CHANGE_TIMEOUT).await;
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
    /// As long as it is served.
    Changing,
    Streaming,
}

/// An answer, or a stream.
type Body = Either<Full<Bytes>, StreamBody<capture::Chunks>>;

async fn handle(request: Request<Incoming>, caller: Caller, stage: &Cell<Stage>) -> Response<Body> {
    let view = caller.views.now();
    let (head, body) = request.into_parts();
    let read = match api::accept(caller.door, &head.method, &head.uri, &head.headers, &view) {
        Ok(Accepted::Read(read)) => read,
        Ok(Accepted::Change(asked)) => {
            stage.set(Stage::Changing);
            let Caller { peer, bodies, .. } = caller;
            return response(change::serve(*asked, &head.headers, body, &view, peer, &bodies).await);
        }
        Err(refusal) => return response(refusal),
    };
    match (&view.packets, read.wish()) {
        (Some(source), Some(wish)) => match source.capture(wish).await {
            Ok(feed) => streamed(capture::pcapng(view.clone(), feed, wish.filter.snap)),
            Err(refusal) => response(api::refused(&refusal, "capture")),
        },
        _ => response(answer(read, &view).await),
    }
}

async fn answer(read: api::Read, view: &View) -> Answer {
    if let Some(generation) = read.generation() {
        return api::stored(generation, view).await;
    }
    let packets = match &view.packets {
        Some(source) if read.needs_packets() => source.read().await,
        _ => None,
    };
    let flows = match &view.packets {
        Some(source) if read.needs_flows() => source.read_flows().await,
        _ => None,
    };
    let why = match (&view.packets, read.question()) {
        (Some(source), Some(question)) => source.ask_why(question).await,
        _ => Ok(None),
    };
    let why = why.as_ref().map(Option::as_ref);
    api::answer(read, view, Readings { packets: packets.as_ref(), flows: flows.as_ref(), why })
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
    for (name, value) in &answer.fields {
        // An ETag is control's; one that is no field value is left out.
        if let Ok(value) = HeaderValue::try_from(value) {
            response = response.header(HeaderName::from_static(name), value);
        }
    }
    // Every part is one of our own constants, so this cannot fail; an empty answer is still an answer.
    response.body(Full::from(answer.body)).unwrap_or_default().map(Either::Left)
}
