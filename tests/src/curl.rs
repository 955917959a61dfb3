//! The real curl, run in a namespace.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{netns::Namespace, process};

/// Longest transfer of a test.
const LIMIT: Duration = Duration::from_secs(120);

/// One curl invocation to be.
#[derive(Debug)]
pub struct Curl(Command);

/// What came back from one request.
#[derive(Debug)]
pub struct Reply {
    /// Status; 0: none came.
    pub status: u16,
    /// Head as received, status line included.
    pub head: String,
    /// Body.
    pub body: String,
    /// Connections curl had to make.
    pub connects: u32,
    /// Bytes of the body, also where it went to a file.
    pub received: u64,
    /// From start to end.
    pub took: Duration,
}

impl Reply {
    /// Value of the first header field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Value of a `key=value` line of the body, as the echo location of [`crate::nginx`] writes them.
    pub fn field(&self, key: &str) -> Option<&str> {
        self.body.lines().find_map(|line| line.split_once('=').filter(|(k, _)| *k == key).map(|(_, v)| v))
    }
}

/// How curl itself ended where no reply came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listens (7).
    Refused,
    /// The server closed without a word (52), or reset (56).
    Closed,
    /// No answer in time (28).
    TimedOut,
    /// Any other exit code of curl.
    Other(i32),
}

impl std::error::Error for Failure {}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Closed => f.write_str("closed without an answer"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Other(code) => write!(f, "curl exit code {code}"),
        }
    }
}

impl Curl {
    /// A curl in that namespace.
    pub fn within(netns: &Namespace) -> Self {
        Self(netns.command("curl"))
    }

    /// A curl in that namespace, kept on one core.
    pub fn within_on_core(netns: &Namespace, core: usize) -> Self {
        let mut command = netns.command("taskset");
        command.args(["-c", &core.to_string(), "curl"]);
        Self(command)
    }

    /// Adds options, as curl spells them.
    #[must_use]
    pub fn with(mut self, options: &[&str]) -> Self {
        self.0.args(options);
        self
    }

    /// Gets a URL.
    ///
    /// # Errors
    /// No reply came: a [`Failure`] is in the chain.
    pub fn get(self, url: &str) -> Result<Reply> {
        self.fetch(url, &[])
    }

    /// Gets a URL into a file.
    ///
    /// # Errors
    /// As [`Self::get`]; a body shorter than announced is one.
    pub fn download(self, url: &str, file: &Path) -> Result<Reply> {
        let mut this = self;
        this.0.arg("--output").arg(file);
        this.fetch(url, &["-D", "-"])
    }

    /// Puts a file to a URL.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn upload(self, url: &str, file: &Path) -> Result<Reply> {
        let mut this = self;
        this.0.arg("--upload-file").arg(file);
        this.fetch(url, &["-i"])
    }

    fn fetch(mut self, url: &str, options: &[&str]) -> Result<Reply> {
        const MARK: &str = "\n@@curl ";
        let options = if options.is_empty() { &["-i"] } else { options };
        self.0.args(["-sS", "--globoff", "--max-time", &LIMIT.as_secs().to_string()]).args(options);
        self.0.args(["-w", &format!("{MARK}%{{http_code}} %{{num_connects}} %{{size_download}}"), url]);
        let start = Instant::now();
        let output = process::run(self.0, LIMIT + Duration::from_secs(5))?;
        let took = start.elapsed();
        if output.code != 0 {
            let failure = match output.code {
                7 => Failure::Refused,
                28 => Failure::TimedOut,
                52 | 56 => Failure::Closed,
                code => Failure::Other(code),
            };
            return Err(failure).with_context(|| format!("{url}: {}", output.stderr.trim()));
        }
        let (text, numbers) = output.stdout.rsplit_once(MARK).context("curl printed no summary")?;
        let numbers: Vec<u64> = numbers.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [status, connects, received] = numbers[..] else { bail!("curl's summary is {numbers:?}") };
        let (head, body) = split_final_head(text);
        Ok(Reply {
            status: u16::try_from(status)?,
            head: head.to_owned(),
            body: body.to_owned(),
            connects: u32::try_from(connects)?,
            received,
            took,
        })
    }
}

/// Skips interim responses, then cuts head from body.
fn split_final_head(text: &str) -> (&str, &str) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let interim = head.split(' ').nth(1).is_some_and(|status| status.starts_with('1'));
    if interim { split_final_head(body) } else { (head, body) }
}

/// Writes `[address]:port` or `address:port` behind `http://`.
pub fn url(address: std::net::IpAddr, port: u16, path: &str) -> String {
    format!("http://{}{path}", std::net::SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interim_heads_are_skipped() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nA: b\r\n\r\nbody";
        assert_eq!(split_final_head(text), ("HTTP/1.1 201 Created\r\nA: b", "body"));
    }
}
