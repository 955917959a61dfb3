//! The admin API, asked directly: one request, one answer.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon's admin socket.
#[derive(Clone, Debug)]
pub struct Admin(pub PathBuf);

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its `ETag`, as it stands there.
    pub etag: Option<String>,
    /// Its body; null where there is none.
    pub body: Value,
}

impl Admin {
    /// Asks. `fields` are further lines of the head, each with its end.
    ///
    /// # Errors
    /// No answer, or one that is no JSON.
    pub fn ask(&self, method: &str, path: &str, fields: &str, body: Option<&Value>) -> Result<Answer> {
        let mut stream = UnixStream::connect(&self.0)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let body = body.map(Value::to_string);
        let length = body.as_ref().map_or_else(String::new, |body| {
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
        });
        let head = format!("{method} {path} HTTP/1.1\r\nHost: lb\r\n{fields}{length}\r\n");
        stream.write_all((head + body.as_deref().unwrap_or_default()).as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8(answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer: {answer:?}"))?;
        let status = head.get(9..12).and_then(|status| status.parse().ok()).context("no status")?;
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("etag").then(|| value.trim().to_owned())
        };
        let etag = head.lines().find_map(field);
        let body =
            if body.is_empty() { Value::Null } else { serde_json::from_str(body).context("no JSON")? };
        Ok(Answer { status, etag, body })
    }

    /// Asks for a change, which has to be made.
    ///
    /// # Errors
    /// It was refused; the text says why.
    pub fn change(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let Answer { status, body: answer, .. } = self.ask(method, path, "", body)?;
        ensure!(status == 200, "{method} {path}: {status} {answer}");
        Ok(answer)
    }
}
