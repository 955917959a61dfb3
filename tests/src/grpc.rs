//! A server of gRPC's health service: over HTTP/2 by prior knowledge, or over TLS.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime,
    task::LocalSet,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use crate::{authority::Identity, topology::Host};

/// How often the thread looks whether to stop.
const TICK: Duration = Duration::from_millis(20);
/// Not a status of the protocol: it ends.
const OVER: u8 = 255;

/// What the service says of itself. Source: grpc/grpc, src/proto/grpc/health/v1/health.proto.
pub const SERVING: u8 = 1;
/// The same.
pub const NOT_SERVING: u8 = 2;

/// Knows one service by name; of others it answers NOT_FOUND. Stops when dropped.
#[derive(Debug)]
pub struct HealthServer {
    status: Arc<AtomicU8>,
    asked: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

struct Service {
    name: &'static str,
    status: Arc<AtomicU8>,
    asked: Arc<AtomicU64>,
}

impl HealthServer {
    /// Listens on the host.
    ///
    /// # Errors
    /// The port is taken, or the files hold no certificate.
    pub fn start(host: &Host, port: u16, name: &'static str, identity: Option<&Identity>) -> Result<Self> {
        let listener = host.netns.run(|| TcpListener::bind((host.v4, port)))??;
        listener.set_nonblocking(true)?;
        let acceptor = identity.map(acceptor).transpose()?;
        let (status, asked) = (Arc::new(AtomicU8::new(SERVING)), Arc::<AtomicU64>::default());
        let service = Arc::new(Service { name, status: status.clone(), asked: asked.clone() });
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let serve = move || runtime.block_on(LocalSet::new().run_until(accept(listener, acceptor, service)));
        Ok(Self { status, asked, thread: Some(thread::spawn(serve)) })
    }

    /// From now on it says so.
    pub fn be(&self, status: u8) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// Questions so far.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for HealthServer {
    fn drop(&mut self) {
        self.be(OVER);
        self.thread.take().map(JoinHandle::join);
    }
}

fn acceptor(identity: &Identity) -> Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(&identity.certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&identity.key)?;
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, service: Arc<Service>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    while service.status.load(Ordering::Relaxed) != OVER {
        let Ok(accepted) = timeout(TICK, listener.accept()).await else { continue };
        let Ok((stream, _)) = accepted else { return };
        tokio::task::spawn_local(welcome(stream, acceptor.clone(), service.clone()));
    }
}

async fn welcome(stream: TcpStream, acceptor: Option<TlsAcceptor>, service: Arc<Service>) {
    // A client that leaves early, or is none, is no affair of a test's.
    _ = match acceptor {
        None => serve(stream, &service).await,
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => serve(stream, &service).await,
            Err(error) => Err(error.into()),
        },
    };
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, service: &Service) -> Result<()> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        // Answered by the turns of the connection.
        answer(request, respond, service)?;
    }
    Ok(())
}

fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, service: &Service) -> Result<()> {
    service.asked.fetch_add(1, Ordering::Relaxed);
    let head = Response::builder().header("content-type", "application/grpc");
    let is_right = request.method() == "POST"
        && request.uri().path() == "/grpc.health.v1.Health/Check"
        && request.headers().get("te").is_some_and(|te| te == "trailers");
    if !is_right {
        // Where there is no message, the head has what trailers would.
        respond.send_response(head.header("grpc-status", "12").body(())?, true)?;
        return Ok(());
    }
    let mut stream = respond.send_response(head.body(())?, false)?;
    let (name, status) = (service.name, service.status.load(Ordering::Relaxed));
    tokio::task::spawn_local(async move {
        let mut trailers = HeaderMap::new();
        match is_about(request.into_body(), name).await {
            Ok(true) => {
                let message = Bytes::from(vec![0, 0, 0, 0, 2, 1 << 3, status]);
                _ = stream.send_data(message, false);
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
            }
            _ => {
                trailers.insert("grpc-status", HeaderValue::from_static("5"));
                trailers.insert("grpc-message", HeaderValue::from_static("unknown service"));
            }
        }
        _ = stream.send_trailers(trailers);
    });
    Ok(())
}

/// Whether the question is about this service.
async fn is_about(mut body: RecvStream, name: &str) -> Result<bool> {
    let mut question = Vec::new();
    while let Some(data) = body.data().await {
        question.extend_from_slice(&data?);
    }
    let message = question.get(5..).context("no message")?;
    let field = [&[1 << 3 | 2, name.len() as u8], name.as_bytes()].concat();
    Ok(message == field)
}
