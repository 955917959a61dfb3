//! The command line's side of a change. Blocking; one request, one answer.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::Value;

use crate::admin::{
    changes::ANSWER_TIMEOUT,
    client::{ANSWER_BYTES_MAX, no_answer, parse},
};

/// Longest silence of the daemon: it is the one to say that it took too long.
const TIMEOUT: Duration = Duration::from_secs(15 + ANSWER_TIMEOUT.as_secs());

/// A change as a request.
#[derive(Clone, Debug, Default)]
pub struct ChangeRequest<'a> {
    /// Such as `POST`.
    pub method: &'static str,
    /// Path and query, encoded.
    pub target: String,
    /// The verb of the command line that asks.
    pub by: &'static str,
    /// ETag that the config must have.
    pub if_match: Option<String>,
    /// Content type and body.
    pub content: Option<(&'static str, &'a [u8])>,
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// For people.
    pub message: String,
    /// What the daemon answered, if one did.
    pub document: Option<Value>,
}

impl From<String> for Refused {
    fn from(message: String) -> Self {
        Self { message, document: None }
    }
}

/// Has a change made; gives what the daemon says of it.
///
/// # Errors
/// No daemon answers at `socket`, or it refuses.
pub fn request(socket: &Path, change: &ChangeRequest<'_>) -> Result<Value, Refused> {
    let place = socket.display();
    let answer = exchange(socket, change).map_err(|error| no_answer(socket, &error))?;
    let (status, body) = parse(&answer).ok_or_else(|| format!("{place}: the answer is not HTTP"))?;
    let document: Value =
        serde_json::from_slice(body).map_err(|error| format!("{place}: the answer is not JSON: {error}"))?;
    if status == 200 {
        return Ok(document);
    }
    let error = &document["error"];
    let message = match (error["message"].as_str(), error["where"].as_str()) {
        // What is wrong with a text says so by itself; this is of a key.
        (Some(message), Some(at)) if error["code"] == "unappliable" => format!("{at}: {message}"),
        (Some(message), _) => message.to_owned(),
        (None, _) => format!("{place}: status {status}"),
    };
    Err(Refused { message, document: Some(document) })
}

fn exchange(socket: &Path, change: &ChangeRequest<'_>) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // It may answer before it has read everything, and then takes no more.
    let sent = stream.write_all(&head(change)).and_then(|()| match change.content {
        Some((_, body)) => stream.write_all(body),
        None => Ok(()),
    });
    let mut answer = Vec::new();
    let received = (&stream).take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
    match (answer.is_empty(), sent.and(received)) {
        (true, Err(error)) => Err(error),
        _ => Ok(answer),
    }
}

fn head(change: &ChangeRequest<'_>) -> Vec<u8> {
    let ChangeRequest { method, target, by, if_match, content } = change;
    let mut head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nUser-Agent: lb/{} {by}\r\n",
        env!("CARGO_PKG_VERSION")
    );
    if let Some(tag) = if_match {
        head += &format!("If-Match: {tag}\r\n");
    }
    if let Some((kind, body)) = content {
        head += &format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
    }
    head += "\r\n";
    head.into_bytes()
}
