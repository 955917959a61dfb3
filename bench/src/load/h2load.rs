//! h2load: as many requests as were asked for, each counted. (wrk stops by the clock and forgets what is under way,
//! so its counts cannot agree with the backend's.)

use std::{fs::File, io::Write as _, os::fd::AsRawFd as _, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::process::Pinned;

/// What a call of gRPC carries: not compressed, 32 bytes.
const MESSAGE: [u8; 37] = {
    let mut message = [b'x'; 37];
    let prefix = [0, 0, 0, 0, 32];
    message.split_at_mut(5).0.copy_from_slice(&prefix);
    message
};

/// What h2load says of TLS where all is as it asks for first.
const SEALED: [&str; 3] = ["TLSv1.3", "Cipher: TLS_AES_128_GCM_SHA256", "Server Temp Key: X25519 "];

/// What to send: every connection sends its next request when the last one is answered.
#[derive(Clone, Debug)]
pub(crate) struct Closed {
    pub(crate) url: String,
    pub(crate) connections: usize,
    pub(crate) requests: u64,
    /// Whether each request has a connection of its own.
    pub(crate) churn: bool,
    pub(crate) speaks: Speaks,
    /// Longer than this is an error.
    pub(crate) time_max: Duration,
}

/// What is spoken with the subject. Of TLS the URL tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// HTTP/1.1, one request at a time.
    Http1,
    /// HTTP/2, this many requests at a time on each connection.
    Http2 { streams: usize },
    /// The same, each a unary call of gRPC with a message of 32 bytes.
    Grpc { streams: usize },
}

impl Speaks {
    /// `message` is the file of what is posted.
    fn arguments(self, message: &str) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        match self {
            Self::Http1 => words(&["--h1"]),
            Self::Http2 { streams } => words(&["-m", &streams.to_string()]),
            Self::Grpc { streams } => words(&[
                "-m",
                &streams.to_string(),
                "-d",
                message,
                "-H",
                "content-type: application/grpc",
                "-H",
                "te: trailers",
            ]),
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Load {
    /// Requests that were sent.
    pub(crate) sent: u64,
    /// Answers with a status of 2xx.
    pub(crate) answered: u64,
    /// Bytes of bodies.
    pub(crate) body_bytes: u64,
    /// From the first connection to the last answer.
    pub(crate) seconds: f64,
}

impl Load {
    /// Requests per second.
    pub(crate) fn rate(&self) -> f64 {
        self.answered as f64 / self.seconds
    }
}

/// Runs it to its end.
///
/// # Errors
/// h2load is missing or fails. Requests that fail are no error here: see the counts.
pub(crate) fn closed_loop(place: Pinned<'_>, load: &Closed) -> Result<Load> {
    // Read by h2load through our open files.
    let message = File::from(memfd_create("message", MemfdFlags::CLOEXEC)?);
    (&message).write_all(&MESSAGE)?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), message.as_raw_fd());
    let mut arguments = load.speaks.arguments(&path);
    arguments.extend(["-t1".to_owned(), "-c".to_owned(), load.connections.to_string()]);
    arguments.extend(["-n".to_owned(), load.requests.to_string()]);
    if load.churn {
        arguments.extend(["-H", "Connection: close"].map(str::to_owned));
    }
    arguments.push(load.url.clone());
    let output = place.output(Path::new("h2load"), &arguments, load.time_max)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = parse(&text).with_context(|| format!("h2load said: {text}"))?;
    ensure!(
        !load.url.starts_with("https:") || SEALED.iter().all(|part| text.contains(part)),
        "not {SEALED:?}: {text}"
    );
    ensure!(found.seconds > 0.0, "h2load took no time: {text}");
    Ok(found)
}

fn parse(text: &str) -> Option<Load> {
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    // requests: 10 total, 10 started, 10 done, 10 succeeded, 0 failed, 0 errored, 0 timeout
    let sent = count(line("requests:")?, "started")?;
    let answered = count(line("status codes:")?, "2xx")?;
    // traffic: 1.2KB (1234) total, 1KB (1024) headers (space savings 0.00%), 200B (200) data
    let data = line("traffic:")?.rsplit(',').next()?;
    let body_bytes = data.split_once('(')?.1.split_once(')')?.0.parse().ok()?;
    let seconds = seconds(line("finished in ")?.split(',').next()?)?;
    Some(Load { sent, answered, body_bytes, seconds })
}

fn count(list: &str, name: &str) -> Option<u64> {
    list.split(',').find_map(|part| part.trim().strip_suffix(name)?.trim().parse().ok())
}

/// `1.23s`, `97.01ms` or `840us`.
fn seconds(text: &str) -> Option<f64> {
    let (number, per_second) = if let Some(number) = text.strip_suffix("us") {
        (number, 1e6)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1e3)
    } else {
        (text.strip_suffix('s')?, 1.0)
    };
    Some(number.parse::<f64>().ok()? / per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "starting benchmark...
spawning thread #0: 32 total client(s). 5000 total requests
progress: 100% done

finished in 97.01ms, 51541.61 req/s, 7.77MB/s
requests: 5000 total, 5000 started, 4999 done, 4990 succeeded, 10 failed, 1 errored, 0 timeout
status codes: 4989 2xx, 0 3xx, 1 4xx, 9 5xx
traffic: 771.48KB (790000) total, 532.23KB (545000) headers (space savings 0.00%), 48.83KB (50000) data
";

    #[test]
    fn counts_are_read_from_what_h2load_says() {
        let load = Load { sent: 5000, answered: 4989, body_bytes: 50_000, seconds: 0.09701 };
        assert_eq!(parse(SAID), Some(load));
        assert_eq!(parse(&SAID.replace("2xx", "")), None);
    }

    #[test]
    fn times_have_three_units() {
        for (text, expected) in [("1.5s", 1.5), ("20.00ms", 0.02), ("500us", 0.0005)] {
            assert!((seconds(text).unwrap() - expected).abs() < 1e-9, "{text}");
        }
        assert_eq!(seconds("1.5"), None);
    }
}
