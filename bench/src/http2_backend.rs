//! The backend of subjects that speak HTTP/2 with it: the `h2` crate on one thread of ours, so that no subject's own
//! way with HTTP/2 is on both ends, and answers may have trailers.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use tokio::{net::TcpStream, runtime, task::LocalSet, time::timeout};

use crate::{
    backend::{Body, SMALL},
    load::pin,
    netns::Namespace,
};

/// What a call of gRPC is answered with: a message as long as [`SMALL`], after its prefix.
pub(crate) const CALL: Body = Body { path: "/bench.Echo/Unary", len: 5 + SMALL.len };
/// How often the thread looks whether to end.
const TICK: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Shared {
    requests: AtomicU64,
    is_over: AtomicBool,
}

/// What is sent, made once.
struct Answers {
    small: Bytes,
    call: Bytes,
    shared: Arc<Shared>,
}

/// Answers GET with 200 bytes, and POST, once it is read, as a call of gRPC. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Http2Backend {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Http2Backend {
    /// Starts it in `namespace`, on `cores`.
    ///
    /// # Errors
    /// The address is taken.
    pub(crate) fn start(namespace: &Namespace, address: SocketAddr, cores: &[usize]) -> Result<Self> {
        let listener =
            namespace.run(|| TcpListener::bind(address))?.with_context(|| format!("bind {address}"))?;
        listener.set_nonblocking(true)?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::<Shared>::default();
        let mut call = vec![b'x'; usize::try_from(CALL.len)?];
        call[0] = 0;
        call[1..5].copy_from_slice(&u32::try_from(SMALL.len)?.to_be_bytes());
        let small = Bytes::from(vec![b'x'; usize::try_from(SMALL.len)?]);
        let answers = Arc::new(Answers { small, call: call.into(), shared: Arc::clone(&shared) });
        let cores = cores.to_vec();
        let serve = move || {
            // On a core too many it is slower, and no less right.
            _ = pin(&cores);
            runtime.block_on(LocalSet::new().run_until(accept(listener, answers)));
        };
        Ok(Self { shared, thread: Some(thread::spawn(serve)) })
    }

    /// Requests that it has taken, this question included, as [`crate::backend::HttpBackend::requests`] counts.
    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Drop for Http2Backend {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

async fn accept(listener: TcpListener, answers: Arc<Answers>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    while !answers.shared.is_over.load(Ordering::Relaxed) {
        let Ok(accepted) = timeout(TICK, listener.accept()).await else { continue };
        let Ok((stream, _)) = accepted else { return };
        tokio::task::spawn_local(serve(stream, Arc::clone(&answers)));
    }
}

/// A request that fails is missing in the subject's answers, where it is found.
async fn serve(stream: TcpStream, answers: Arc<Answers>) {
    _ = stream.set_nodelay(true);
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        answers.shared.requests.fetch_add(1, Ordering::Relaxed);
        if answer(request, respond, &answers).is_err() {
            return;
        }
    }
}

fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, answers: &Answers) -> Result<()> {
    if request.method() != Method::POST {
        let head = Response::builder().header("content-length", answers.small.len()).body(())?;
        respond.send_response(head, false)?.send_data(answers.small.clone(), true)?;
        return Ok(());
    }
    let head = Response::builder().header("content-type", "application/grpc").body(())?;
    let call = answers.call.clone();
    tokio::task::spawn_local(async move {
        if read(request.into_body()).await.is_ok()
            && let Ok(stream) = respond.send_response(head, false)
        {
            _ = finish(stream, call);
        }
    });
    Ok(())
}

async fn read(mut body: RecvStream) -> Result<()> {
    while let Some(piece) = body.data().await {
        body.flow_control().release_capacity(piece?.len())?;
    }
    Ok(())
}

fn finish(mut stream: SendStream<Bytes>, call: Bytes) -> Result<()> {
    stream.send_data(call, false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    Ok(stream.send_trailers(trailers)?)
}
