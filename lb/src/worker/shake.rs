//! The handshake before the first byte of a connection whose listener speaks TLS; and that with a backend whose pool does.
//!
//! ```text
//!  whole ClientHello --> certificate and terms --> its turn --> hands are shaken --> the listener's protocol
//!       |                       |                                   |- refused: alert --> linger --> closed
//!       `- none ----------------+- none for that name --------------'
//! ```

use std::sync::Arc;

use super::{
    connection::Accepted, linger::linger, local::Local, own_answer::LINGER, secure::Secure, speak::speak,
    stream::Stream, stream_error::StreamError, timer::Deadline,
};
use crate::{
    config::Protocol,
    l7::http1::encode_error,
    model::reason::CloseReason,
    ring::SendBuf,
    sys::rooms,
    tls::{Greeting, Refusal, Server, Session, Upstream, Why},
};

/// Shakes hands, then hands the connection on.
pub(super) async fn drive(
    mut accepted: Accepted,
    begun: Option<Box<Stream>>,
    server: Arc<Server>,
    protocol: Protocol,
) {
    let local = accepted.local().clone();
    let deadline = local.timers.deadline();
    let mut stream = begun.unwrap_or_else(|| Box::new(Stream::new(accepted.sink.clone())));
    deadline.set(local.after(local.plan().snapshot.limits.head_timeout));
    // Of HTTP it is known what may be said twice.
    let early = if protocol == Protocol::Http { Early::Served } else { Early::Waits };
    let shaking = rooms::pinned(shake(&accepted, &server, &mut stream, &deadline, early));
    match shaking.await {
        Ok((secure, plain)) => {
            let metrics = accepted.metrics();
            metrics.handshakes.add(1);
            metrics.resumptions.add(u64::from(secure.terms.is_resumed));

            stream.begin_secure(secure, plain);
            accepted.sink = stream.sink().clone();
            drop(deadline);
            speak(accepted, Some(stream), protocol);
        }
        // Whoever connects and goes away, as health checks do, has asked for nothing.
        Err(Miss { reason: CloseReason::ClientGone, .. }) if stream.is_untouched() => {}
        Err(miss) => {
            accepted.begin(&local.plan().snapshot);
            accepted.fail(miss.reason);
            accepted.entry.end();
            let is_http = protocol == Protocol::Http && miss.is_http;
            part(&local, &mut stream, &deadline, miss, is_http).await;
        }
    }
}

/// What becomes of what comes before hands are shaken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Early {
    Served,
    Waits,
}

/// No hands were shaken.
struct Miss {
    reason: CloseReason,
    alert: Vec<u8>,
    /// The client speaks HTTP in the clear.
    is_http: bool,
}

impl From<CloseReason> for Miss {
    fn from(reason: CloseReason) -> Self {
        Self { reason, alert: Vec::new(), is_http: false }
    }
}

impl From<Refusal> for Miss {
    fn from(refusal: Refusal) -> Self {
        Self { reason: of_client(refusal.why), alert: refusal.alert, is_http: false }
    }
}

/// Whose fault it is where a client is refused, or goes.
pub(super) const fn of_client(why: Why) -> CloseReason {
    match why {
        Why::Hello => CloseReason::TlsHello,
        Why::NothingInCommon => CloseReason::TlsNothingInCommon,
        Why::NoCertificate => CloseReason::TlsNoCertificate,
        Why::PeerCertificate => CloseReason::TlsClientCertificate,
        Why::Alert => CloseReason::TlsAlert,
        Why::Protocol => CloseReason::TlsProtocol,
    }
}

/// Shakes hands with a backend, behind a `header` in the clear: from here on what `stream` has was opened, and what goes is sealed.
///
/// # Errors
/// [`CloseReason::UpstreamCertificate`], [`CloseReason::UpstreamTls`], and as connecting has them.
pub(super) async fn with_backend(
    local: &Local,
    upstream: &Upstream,
    backend: &str,
    header: Option<&[u8]>,
    stream: &mut Stream,
    deadline: &Deadline,
) -> Result<(), CloseReason> {
    let failed = |error| match error {
        StreamError::Expired if local.is_overdue() => CloseReason::Draining,
        StreamError::Expired => CloseReason::ConnectTimeout,
        StreamError::Broken => CloseReason::UpstreamTls,
    };
    let mut session = upstream.begin(backend).map_err(|refusal| of_backend(refusal.why))?;
    let (mut records, mut plain) = (Vec::new(), Vec::new());
    let mut before = header.map(<[u8]>::to_vec).unwrap_or_default();
    loop {
        let opened = session.open(&mut records, &mut plain);
        let (unsent, refused) = match opened {
            Ok(()) => (session.take_unsent(), None),
            Err(refusal) => (refusal.alert, Some(of_backend(refusal.why))),
        };
        // The header goes with the greeting, in one segment.
        let unsent = match before.is_empty() {
            true => unsent,
            false => [std::mem::take(&mut before), unsent].concat(),
        };
        // With the last of them the first request could go; few backends are dialled for one.
        if !unsent.is_empty() {
            let sent = stream.sink().send_raw(SendBuf::Bytes(unsent), deadline).await;
            sent.map_err(|error| refused.unwrap_or(failed(error)))?;
        }
        if let Some(reason) = refused {
            return Err(reason);
        }
        if !session.is_handshaking() {
            stream.begin_secure(Secure::new(session), plain);
            return Ok(());
        }
        if stream.fill(deadline).await.map_err(failed)? == 0 {
            return Err(CloseReason::UpstreamTls);
        }
        records.clear();
        records.extend_from_slice(stream.data());
        stream.consume(records.len());
    }
}

/// Whose fault it is where a backend is refused, or refuses.
const fn of_backend(why: Why) -> CloseReason {
    match why {
        Why::PeerCertificate => CloseReason::UpstreamCertificate,
        _ => CloseReason::UpstreamTls,
    }
}

async fn shake(
    accepted: &Accepted,
    server: &Server,
    stream: &mut Stream,
    deadline: &Deadline,
    early: Early,
) -> Result<(Secure, Vec<u8>), Miss> {
    let local = accepted.local();
    let (mut session, records) = greet(local, server, stream, deadline).await?;
    // Now it becomes dear.
    deadline.guard(std::pin::pin!(local.handshakes.pass())).await.map_err(|_| late(local))?;
    let shaken = hands(local, &mut session, records, stream, deadline, early).await;
    match session.took_early() {
        Some(true) => accepted.metrics().early_accepted.add(1),
        Some(false) => accepted.metrics().early_rejected.add(1),
        None => {}
    }
    Ok((Secure::new(session), shaken?))
}

/// Goes on until hands are shaken, or bytes have come that are served before; what has been said.
async fn hands(
    local: &Local,
    session: &mut Session,
    mut records: Vec<u8>,
    stream: &mut Stream,
    deadline: &Deadline,
    early: Early,
) -> Result<Vec<u8>, Miss> {
    let mut plain = Vec::new();
    loop {
        session.open(&mut records, &mut plain)?;
        if session.has_ended() {
            return Err(CloseReason::ClientGone.into());
        }
        let is_done = !session.is_handshaking();
        // Behind a request that came along, tickets go with its answer.
        if !is_done || plain.is_empty() {
            let unsent = session.take_unsent();
            if !unsent.is_empty() {
                let sent = stream.sink().send_raw(SendBuf::Bytes(unsent), deadline).await;
                sent.map_err(|error| gone(local, error))?;
            }
        }
        if is_done || (early == Early::Served && session.is_early()) {
            return Ok(plain);
        }
        receive(local, stream, deadline).await?;
        records.clear();
        records.extend_from_slice(stream.data());
        stream.consume(stream.data().len());
    }
}

/// Reads the ClientHello, and finds out what to do with it.
async fn greet(
    local: &Local,
    server: &Server,
    stream: &mut Stream,
    deadline: &Deadline,
) -> Result<(Session, Vec<u8>), Miss> {
    let mut greeting = Box::new(Greeting::default());
    let mut is_first = true;
    loop {
        let len = stream.data().len();
        if len > 0 {
            let is_http = is_first && stream.data()[0].is_ascii_uppercase();
            let greeted = greeting.handle(stream.data(), server);
            stream.consume(len);
            is_first = false;
            match greeted {
                Ok(None) => {}
                Ok(Some(met)) => return Ok(met),
                Err(refusal) => return Err(Miss { is_http, ..refusal.into() }),
            }
        }
        receive(local, stream, deadline).await?;
    }
}

async fn receive(local: &Local, stream: &mut Stream, deadline: &Deadline) -> Result<(), CloseReason> {
    match stream.fill(deadline).await {
        Ok(0) => Err(CloseReason::ClientGone),
        Ok(_) => Ok(()),
        Err(error) => Err(gone(local, error)),
    }
}

fn gone(local: &Local, error: StreamError) -> CloseReason {
    match error {
        StreamError::Broken => CloseReason::ClientGone,
        StreamError::Expired => late(local),
    }
}

fn late(local: &Local) -> CloseReason {
    if local.is_overdue() { CloseReason::Draining } else { CloseReason::TlsTimeout }
}

/// Tells the client why, and reads on for a moment, so that a reset does not overtake it.
async fn part(local: &Local, stream: &mut Stream, deadline: &Deadline, miss: Miss, is_http: bool) {
    let mut out = miss.alert;
    if is_http {
        out = local.buffers.take();
        encode_error(&mut out, miss.reason, b"", false, true);
    }
    if out.is_empty() {
        return;
    }
    deadline.set(local.after(LINGER));
    if stream.sink().send_raw(SendBuf::Bytes(out), deadline).await.is_err() {
        return;
    }
    linger(stream, deadline).await;
}
