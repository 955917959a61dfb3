//! One probe over the network: connects, says what the script says, and gives the machine what comes back.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use futures_lite::{
    future,
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
};
use glommio::{
    GlommioError,
    net::{TcpStream, UdpSocket},
    timer::sleep,
};

use super::{
    probe_grpc::{self, Asked},
    probe_miss::{Miss, miss},
    probe_socket::{self, Through},
    probe_tls::Secured,
};
use crate::{
    health::{Found, Script},
    model::BackendAddress,
    sys::adopt,
    tls::Upstream,
};

/// What is read at once.
const READ_BYTES: usize = 4096;
/// Longest datagram that is read whole.
const DATAGRAM_BYTES: usize = 9000;

/// How TLS is spoken with a backend.
#[derive(Clone, Debug)]
pub(super) struct Secure {
    pub(super) upstream: Arc<Upstream>,
    /// Who it is taken for: a name or an address.
    pub(super) name: Arc<str>,
}

impl PartialEq for Secure {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.upstream, &other.upstream) && self.name == other.name
    }
}

/// Whom a probe asks, and how it gets there.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) address: &'a BackendAddress,
    /// The host that is asked for, in HTTP/2.
    pub(super) authority: &'a str,
    /// Where TLS is spoken.
    pub(super) secure: Option<&'a Secure>,
    /// The way of a VIP's traffic, if it goes so.
    pub(super) through: Option<Through<'a>>,
}

/// Asks a backend.
///
/// # Errors
/// See [`Miss`].
pub(super) async fn ask(script: &Script, way: Way<'_>, deadline: Instant) -> Result<(), Miss> {
    let address = match way.address {
        BackendAddress::Ip(address) => *address,
        // Nothing more is asked of one: whether somebody accepts.
        BackendAddress::Unix(address) => {
            let connected = probe_socket::connect_unix(address, deadline).await;
            return connected.map_err(|error| miss(&error, false));
        }
    };
    if script.is_datagram() {
        return exchange(script, address, way.through, deadline).await;
    }
    let mut held = None;
    let stream = match way.through {
        None => TcpStream::connect_timeout(address, left(deadline, false)?).await.map_err(io_error),
        Some(through) => through.connect(address, deadline).await.map(|(stream, port)| {
            held = Some(port);
            stream
        }),
    };
    let stream = stream.map_err(|error| miss(&error, false))?;
    let outcome = match (way.secure, script.is_connection()) {
        (None, true) => {
            drop(stream);
            Ok(())
        }
        (None, false) => within(deadline, converse(script, way, stream, deadline)).await,
        (Some(secure), _) => within(deadline, converse_secured(script, way, secure, stream, deadline)).await,
    };
    // Closed by now: what it still had to say went out while its port was known.
    drop(held);
    outcome
}

/// What comes of a conversation, or silence at the deadline.
async fn within(deadline: Instant, conversation: impl Future<Output = Result<(), Miss>>) -> Result<(), Miss> {
    let late = async {
        sleep(deadline.saturating_duration_since(Instant::now())).await;
        Err(Miss::Silent { is_connected: true })
    };
    future::or(conversation, late).await
}

async fn converse_secured(
    script: &Script,
    way: Way<'_>,
    secure: &Secure,
    stream: TcpStream,
    deadline: Instant,
) -> Result<(), Miss> {
    let session = secure.upstream.begin(&secure.name).map_err(|refusal| Miss::Local(refusal.to_string()))?;
    let mut stream = Secured::new(stream, session);
    stream.shake_hands().await.map_err(|error| miss(&error, true))?;
    if !script.is_connection() {
        converse(script, way, &mut stream, deadline).await?;
    }
    // Whether the backend hears that is not asked.
    _ = stream.close().await;
    Ok(())
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    script: &Script,
    way: Way<'_>,
    stream: S,
    deadline: Instant,
) -> Result<(), Miss> {
    if !script.is_grpc() {
        return talk(script, stream).await;
    }
    let scheme = if way.secure.is_some() { "https" } else { "http" };
    let patience = deadline.saturating_duration_since(Instant::now());
    probe_grpc::ask(script, Asked { scheme, authority: way.authority, patience }, stream).await
}

fn io_error(error: GlommioError<()>) -> io::Error {
    error.into()
}

/// # Errors
/// None is left.
fn left(deadline: Instant, is_connected: bool) -> Result<std::time::Duration, Miss> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(Miss::Silent { is_connected }) } else { Ok(left) }
}

fn verdict(found: Found) -> Result<Option<()>, Miss> {
    match found {
        Found::More => Ok(None),
        Found::Up => Ok(Some(())),
        Found::Down(fault) => Err(Miss::Fault(fault)),
    }
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(script: &Script, mut stream: S) -> Result<(), Miss> {
    let connected = |error: io::Error| miss(&error, true);
    if !script.question().is_empty() {
        // One that refuses to listen may have said why.
        match stream.write_all(script.question()).await {
            Err(error) if matches!(miss(&error, true), Miss::Fault(_)) => {}
            sent => sent.map_err(connected)?,
        }
    }
    let mut dialogue = script.dialogue();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let found = match stream.read(&mut buffer).await.map_err(connected)? {
            0 => dialogue.handle_end(),
            len => dialogue.handle(&buffer[..len]),
        };
        if verdict(found)?.is_some() {
            return Ok(());
        }
    }
}

async fn exchange(
    script: &Script,
    address: SocketAddr,
    through: Option<Through<'_>>,
    deadline: Instant,
) -> Result<(), Miss> {
    let failed = |error: io::Error| miss(&error, true);
    let (socket, held) = match through {
        Some(through) => through.datagrams(address).map(|(socket, port)| (socket, Some(port))),
        None => probe_socket::datagrams(address).map(|socket| (socket, None)),
    }
    .map_err(|error| miss(&error, false))?;
    let socket: UdpSocket = adopt(socket);
    socket.send(script.question()).await.map_err(io_error).map_err(failed)?;
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let outcome = loop {
        socket.set_read_timeout(Some(left(deadline, true)?)).map_err(io_error).map_err(failed)?;
        let found = match socket.recv(&mut buffer).await.map_err(io_error) {
            Ok(len) => verdict(script.dialogue().handle(&buffer[..len])),
            Err(error) => Err(failed(error)),
        };
        match found {
            Ok(None) => {}
            Ok(Some(())) => break Ok(()),
            Err(miss) => break Err(miss),
        }
    };
    drop(socket);
    drop(held);
    outcome
}
