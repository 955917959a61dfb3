//! One question of gRPC over HTTP/2, on a connection of its own: the client speaks HTTP/2 from its first byte, as it knows
//! that the backend does (RFC 9113, 3.3).

use std::{
    future::pending,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_lite::{
    future,
    io::{AsyncRead, AsyncWrite},
};
use h2::client;
use http::{HeaderMap, Request, header};
use hyper::body::Bytes;
use tokio::io::ReadBuf;

use super::{
    probe_miss::{Miss, miss},
    probe_tls,
};
use crate::{
    health::{Fault, Found, GRPC_PATH, GrpcAnswer, Script},
    metrics::ProbeEnd,
};

/// Most bytes of a head or of trailers.
const HEAD_BYTES_MAX: u32 = 16 << 10;
/// Most bytes of messages.
const BODY_BYTES_MAX: usize = 8 << 10;

/// Whom to ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// Host, and port where it is said.
    pub(super) authority: &'a str,
    /// How long it may take; the backend is told.
    pub(super) patience: Duration,
}

/// Asks over a stream, which is dropped with the answer.
///
/// # Errors
/// See [`Miss`].
pub(super) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    script: &Script,
    asked: Asked<'_>,
    stream: S,
) -> Result<(), Miss> {
    let request = request(asked).map_err(|error| Miss::Local(error.to_string()))?;
    let mut builder = client::Builder::new();
    builder.enable_push(false).max_header_list_size(HEAD_BYTES_MAX);
    let (requests, connection) = builder.handshake::<_, Bytes>(TokioStream(stream)).await.map_err(broken)?;
    let going_on = async {
        // How it ends the exchange learns by itself, which may have its answer by then.
        _ = connection.await;
        pending().await
    };
    future::or(exchange(script, request, requests), going_on).await
}

fn request(asked: Asked<'_>) -> http::Result<Request<()>> {
    let Asked { scheme, authority, patience } = asked;
    Request::post(format!("{scheme}://{authority}{GRPC_PATH}"))
        .version(http::Version::HTTP_2)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "lb")
        .header("grpc-timeout", format!("{}m", patience.as_millis().clamp(1, 99_999_999)))
        .body(())
}

async fn exchange(
    script: &Script,
    request: Request<()>,
    requests: client::SendRequest<Bytes>,
) -> Result<(), Miss> {
    let mut requests = requests.ready().await.map_err(broken)?;
    let (response, mut question) = requests.send_request(request, false).map_err(broken)?;
    // One that answers before it has heard all may have said why.
    _ = question.send_data(Bytes::copy_from_slice(script.question()), true);
    let (head, mut messages) = response.await.map_err(broken)?.into_parts();
    let mut body = Vec::new();
    while let Some(data) = messages.data().await {
        body.extend_from_slice(&data.map_err(broken)?);
        if body.len() > BODY_BYTES_MAX {
            let text = format!("an answer of more than {BODY_BYTES_MAX} bytes");
            return Err(Miss::Fault(Fault { end: ProbeEnd::Malformed, text }));
        }
    }
    let trailers = messages.trailers().await.map_err(broken)?;
    let field = |name: &str| {
        let of = |fields: &'_ HeaderMap| fields.get(name).map(|value| value.as_bytes().to_vec());
        trailers.as_ref().and_then(of).or_else(|| of(&head.headers))
    };
    let (grpc_status, grpc_message) = (field("grpc-status"), field("grpc-message"));
    let answer = GrpcAnswer {
        status: head.status.as_u16(),
        grpc_status: grpc_status.as_deref(),
        grpc_message: grpc_message.as_deref(),
        body: &body,
    };
    match script.judge(&answer) {
        Found::Down(fault) => Err(Miss::Fault(fault)),
        Found::Up | Found::More => Ok(()),
    }
}

/// Why HTTP/2 came to an end.
fn broken(error: h2::Error) -> Miss {
    if error.is_io() {
        return match error.into_io() {
            Some(error) if error.raw_os_error().is_some() || probe_tls::refusal(&error).is_some() => {
                miss(&error, true)
            }
            // So h2 says that the stream came to its end.
            _ => miss(&io::ErrorKind::UnexpectedEof.into(), true),
        };
    }
    let reason = error.reason().map_or_else(|| error.to_string(), |reason| format!("{reason:?}"));
    let (end, text) = match (error.is_remote(), error.is_go_away()) {
        (true, true) => (ProbeEnd::Closed, format!("closed before the answer: {reason}")),
        (true, false) => (ProbeEnd::Closed, format!("reset before the answer: {reason}")),
        (false, _) => (ProbeEnd::Malformed, format!("no HTTP/2: {reason}")),
    };
    Miss::Fault(Fault { end, text })
}

/// A stream as h2 wants it.
struct TokioStream<S>(S);

impl<S: AsyncRead + Unpin> tokio::io::AsyncRead for TokioStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let len = ready!(Pin::new(&mut self.0).poll_read(cx, buffer.initialize_unfilled()))?;
        buffer.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> tokio::io::AsyncWrite for TokioStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}
