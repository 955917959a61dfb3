//! `[log]`: what an access log says of a request or connection, in which form, and where it goes.

use std::{net::SocketAddr, path::PathBuf};

/// An access log; where none is wanted there is none of these.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// `log.access` with `log.format` and `log.include`.
    pub style: LogStyle,
    /// `log.file`.
    pub target: LogTarget,
    /// `log.sample`, in millionths: what share of lines without an error is written.
    pub sample_ppm: u32,
}

/// [`AccessLog::sample_ppm`] that leaves nothing out.
pub const SAMPLE_ALL: u32 = 1_000_000;

/// The form of a line.
#[derive(Clone, Debug, PartialEq)]
pub enum LogStyle {
    /// One JSON object.
    Json(LogInclude),
    /// By a format string.
    Text(LogFormat),
}

/// What may hold secrets or is large, and so is only logged where it was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogInclude {
    /// Query strings, in the target and in `Referer`.
    pub query: bool,
    /// `User-Agent`.
    pub user_agent: bool,
    /// `Referer`.
    pub referer: bool,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Appended to a file, by its absolute path.
    File(PathBuf),
    /// RFC 5424 to the local socket `/dev/log`.
    SyslogLocal,
    /// RFC 5424 in UDP datagrams.
    SyslogUdp(SocketAddr),
}

impl std::fmt::Display for LogTarget {
    /// As it is written in a config.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => path.display().fmt(f),
            Self::SyslogLocal => f.write_str("syslog"),
            Self::SyslogUdp(address) => write!(f, "syslog:{address}"),
        }
    }
}

/// A format string with its variables found.
#[derive(Clone, Debug, PartialEq)]
pub struct LogFormat {
    /// As it was written.
    pub text: String,
    /// In order.
    pub pieces: Vec<LogPiece>,
}

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPiece {
    /// Written as it is; holds no control character.
    Literal(String),
    /// A value, and whether it stands between quotation marks: there alone may a space stand for itself.
    Field(LogField, Quoted),
}

/// See [`LogPiece::Field`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quoted {
    /// Between quotation marks.
    Yes,
    /// Bare.
    No,
}

impl AccessLog {
    /// What workers have to note beyond the rest.
    pub fn include(&self) -> LogInclude {
        match &self.style {
            LogStyle::Json(include) => *include,
            LogStyle::Text(format) => {
                let has = |fields: &[LogField]| {
                    format
                        .pieces
                        .iter()
                        .any(|piece| matches!(piece, LogPiece::Field(field, _) if fields.contains(field)))
                };
                LogInclude {
                    query: has(&[LogField::Query, LogField::RequestUri]),
                    user_agent: has(&[LogField::UserAgent]),
                    referer: has(&[LogField::Referer]),
                }
            }
        }
    }
}

macro_rules! log_fields {
    ($($(#[doc = $doc:literal])+ $variant:ident, $($name:literal)|+;)+) => {
        /// What a format string may name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum LogField { $($(#[doc = $doc])+ $variant,)+ }

        impl LogField {
            /// Every name, nginx's own for the same thing included.
            pub const NAMES: &'static [(&'static str, Self)] = &[$($(($name, Self::$variant),)+)+];
        }
    };
}

log_fields! {
    /// When the first byte came: RFC 3339 in UTC, with milliseconds.
    Time, "time";
    /// The same as `26/Nov/2026:10:02:11 +0000`.
    TimeLocal, "time_local";
    /// The client's address.
    Client, "client" | "remote_addr";
    /// The client's port.
    ClientPort, "client_port" | "remote_port";
    /// Name of the listener.
    Listener, "listener";
    /// What the listener speaks: `http`, `tcp` or `udp`.
    Protocol, "protocol";
    /// Name of the route.
    Route, "route";
    /// Name of the pool.
    Pool, "pool";
    /// The backend of the last attempt.
    Backend, "backend" | "upstream_addr";
    /// Protocol that the connection has changed to (101).
    Upgrade, "upgrade";
    /// Method.
    Method, "method" | "request_method";
    /// Host and port that the request is for.
    Authority, "authority" | "host" | "http_host";
    /// Path as routed, without query.
    Path, "path" | "uri" | "document_uri";
    /// Query string without its `?`.
    Query, "query" | "args" | "query_string";
    /// `GET /path HTTP/1.1`, without the query.
    Request, "request";
    /// Path and query.
    RequestUri, "request_uri";
    /// `HTTP/1.1` or `HTTP/1.0`.
    Version, "version" | "server_protocol";
    /// Status that the client was sent; 0: none.
    Status, "status";
    /// Bytes from the client.
    ReceivedBytes, "received_bytes" | "request_length";
    /// Bytes to the client.
    SentBytes, "sent_bytes" | "bytes_sent";
    /// The same without the response head.
    SentBodyBytes, "sent_body_bytes" | "body_bytes_sent";
    /// Microseconds from the first byte to the complete head.
    HeadUs, "head_us";
    /// From there to the begin of the last attempt: waiting, and attempts that failed.
    QueueUs, "queue_us";
    /// Of the last attempt, until connected; 0 where a kept connection was reused.
    ConnectUs, "connect_us";
    /// From there to the complete response head; of a relay, to the first byte from the backend.
    FirstByteUs, "first_byte_us";
    /// From the first byte to the end.
    TotalUs, "total_us";
    /// As [`LogField::TotalUs`], in seconds with milliseconds.
    RequestTime, "request_time";
    /// As [`LogField::ConnectUs`], in seconds with milliseconds.
    UpstreamConnectTime, "upstream_connect_time";
    /// Connect and first byte, in seconds with milliseconds.
    UpstreamHeaderTime, "upstream_header_time";
    /// From the begin of the last attempt to the end, in seconds with milliseconds.
    UpstreamResponseTime, "upstream_response_time";
    /// Backends that were tried.
    Attempts, "attempts";
    /// 1 where the last attempt ran on a kept connection.
    Reused, "reused";
    /// Why it did not end well, by name.
    Reason, "reason";
    /// Whose fault that was: `downstream`, `upstream` or `us`.
    Fault, "fault";
    /// Number of the worker.
    Worker, "worker";
    /// The request's `X-Request-Id`.
    RequestId, "request_id" | "http_x_request_id";
    /// `User-Agent`.
    UserAgent, "user_agent" | "http_user_agent";
    /// `Referer`, without its query unless queries are logged.
    Referer, "referer" | "http_referer";
    /// The name that a TLS client asked for, where we speak TLS with it or routes go by it.
    Sni, "sni" | "ssl_preread_server_name" | "ssl_server_name";
    /// Version and cipher suite of TLS, such as `TLSv1.3 TLS13_AES_128_GCM_SHA256`.
    Tls, "tls";
    /// `passed` or `waited`, of a request that came before hands were shaken (0-RTT).
    EarlyData, "early_data";
}
