//! A line per request, for the scenario in which every side logs.

use std::{
    fs::File,
    io::{BufWriter, Result, Write},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use pingora::{Error, proxy::Session};

/// As nginx's `access_log ... buffer=64k`: written when that much has come together, else with the process.
const BUFFER_BYTES: usize = 64 * 1024;

/// The open file.
pub(crate) struct AccessLog(Mutex<BufWriter<File>>);

impl AccessLog {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self(Mutex::new(BufWriter::with_capacity(BUFFER_BYTES, file))))
    }

    /// Client, time (seconds since 1970), request line, status, body bytes, user agent.
    pub(crate) fn write(&self, session: &Session, error: Option<&Error>) {
        let request = session.req_header();
        let client = session.client_addr().and_then(|address| address.as_inet());
        let client = client.map_or_else(|| "-".to_owned(), |client| client.ip().to_string());
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let status = session.response_written().map_or(0, |response| response.status.as_u16());
        let agent = request.headers.get("User-Agent").map_or("-", |agent| agent.to_str().unwrap_or("-"));
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written must not fail requests; the harness counts its lines.
        let _ = writeln!(
            file,
            "{client} [{time:.3}] \"{} {} {:?}\" {status} {} \"{agent}\" {}",
            request.method,
            request.uri,
            request.version,
            session.body_bytes_sent(),
            error.map_or("-", |error| error.etype().as_str()),
        );
    }
}
