//! Why a connection or an exchange ended otherwise than well: a name, whose fault, and what the client is told.

/// Who caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client, or the way to it.
    Downstream,
    /// The backend, or the way to it.
    Upstream,
    /// Ourselves: a limit, the config, a lack of memory.
    Us,
}

macro_rules! close_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident, $name:literal, $fault:ident, $status:literal;)+) => {
        /// Named reasons of the connection path. Names are frozen once released.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum CloseReason { $($(#[doc = $doc])+ $variant,)+ }

        impl CloseReason {
            /// All, in index order (`reason as usize`).
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Name in metrics, logs and `lb show`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Whose fault it is.
            pub const fn fault(self) -> Fault {
                match self { $(Self::$variant => Fault::$fault,)+ }
            }

            /// HTTP status to answer with while no response head was sent; 0: none, just close.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// One line for the operator.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

close_reasons! {
    /// Request line is not `method SP target SP HTTP/1.x`.
    RequestLine, "request-line", Downstream, 400;
    /// HTTP version is not 1.0 or 1.1.
    Version, "version", Downstream, 505;
    /// Request target is malformed for its method.
    Target, "target", Downstream, 400;
    /// Request target is longer than allowed.
    TargetTooLong, "target-too-long", Downstream, 414;
    /// Method is longer than allowed, or is CONNECT, which is not enabled.
    Method, "method", Downstream, 501;
    /// A header line breaks the syntax: bare CR or LF, space before the colon, folding, control characters.
    HeaderSyntax, "header-syntax", Downstream, 400;
    /// Host is missing, doubled, empty or malformed.
    Host, "host", Downstream, 400;
    /// Content-Length and Transfer-Encoding together.
    FramingConflict, "framing-conflict", Downstream, 400;
    /// Content-Length is doubled, signed, not decimal or too large.
    ContentLength, "content-length", Downstream, 400;
    /// Transfer-Encoding is malformed, or stands in an HTTP/1.0 request.
    TransferEncoding, "transfer-encoding", Downstream, 400;
    /// Transfer coding that we do not know.
    UnknownCoding, "unknown-coding", Downstream, 501;
    /// Chunk size, extension, data end or trailer breaks the syntax.
    Chunk, "chunk", Downstream, 400;
    /// Trailers are too long or name a field that may not stand there.
    Trailer, "trailer", Downstream, 400;
    /// Body is longer than allowed.
    BodyTooLarge, "body-too-large", Downstream, 413;
    /// Head is longer than allowed.
    HeadTooLarge, "head-too-large", Downstream, 431;
    /// Head has more fields than allowed.
    TooManyFields, "too-many-fields", Downstream, 431;
    /// Expect asks for something else than 100-continue.
    Expect, "expect", Downstream, 417;
    /// HTTP/2 preface on a listener that speaks HTTP/1 only.
    Http2Preface, "http2-preface", Downstream, 400;
    /// Head did not arrive in time.
    HeadTimeout, "head-timeout", Downstream, 408;
    /// Body made no progress in time.
    BodyTimeout, "body-timeout", Downstream, 408;
    /// Nothing happened for longer than the idle limit.
    IdleTimeout, "idle-timeout", Downstream, 0;
    /// The client reset or closed in the middle.
    ClientGone, "client-gone", Downstream, 0;
    /// No route matches host and path, or TLS server name.
    NoRoute, "no-route", Us, 404;
    /// Routes match host and path, but none has the method.
    MethodNotAllowed, "method-not-allowed", Us, 405;
    /// More requests than limits.rate or the route's rate_limit allows.
    RateLimit, "rate-limit", Us, 429;
    /// No backend of the pool is up.
    NoBackend, "no-backend", Us, 503;
    /// Every backend that could take it has as much as it may, and as many wait already as may wait.
    QueueFull, "queue-full", Us, 503;
    /// Every backend that could take it had as much as it may, for longer than it may wait.
    QueueTimeout, "queue-timeout", Us, 503;
    /// Connections in all are at their limit.
    ConnectionsLimit, "connections-limit", Us, 0;
    /// Connections of this address are at their limit.
    ConnectionsPerIp, "connections-per-ip", Us, 0;
    /// Connections of this listener are at their limit.
    ConnectionsListener, "connections-listener", Us, 0;
    /// The pool has names for its backends, and no answer that gives it one.
    Unresolved, "unresolved", Upstream, 503;
    /// We are draining: the drain deadline ended the connection.
    Draining, "draining", Us, 0;
    /// No operation slot or buffer was left.
    Resources, "resources", Us, 503;
    /// Memory is short of limits.memory.
    Memory, "memory", Us, 503;
    /// Every attempted backend refused the connection.
    ConnectFailed, "connect-failed", Upstream, 502;
    /// Every attempted backend left the connection attempt unanswered.
    ConnectTimeout, "connect-timeout", Upstream, 504;
    /// The backend closed or reset before its response head was complete.
    UpstreamClosed, "upstream-closed", Upstream, 502;
    /// The backend's response head did not arrive in time.
    UpstreamTimeout, "upstream-timeout", Upstream, 504;
    /// The backend's response breaks HTTP framing.
    BadResponse, "bad-response", Upstream, 502;
    /// The backend ended its response body early or stalled.
    Truncated, "truncated", Upstream, 0;
    /// The exchange took longer than the deadline of its route.
    Deadline, "deadline", Upstream, 504;
    /// The PROXY header in front of the connection is malformed.
    ProxyHeader, "proxy-header", Downstream, 0;
    /// A trusted proxy sent no PROXY header where one is required.
    ProxyMissing, "proxy-missing", Downstream, 0;
    /// PROXY headers are required, and the client is none of the trusted proxies.
    ProxyUntrusted, "proxy-untrusted", Downstream, 0;
    /// Routes by TLS server name, no pool for anything else, and the client does not speak TLS.
    NotTls, "not-tls", Downstream, 0;
    /// Routes by TLS server name, no pool for anything else, and the client names none.
    NoServerName, "no-server-name", Downstream, 0;
    /// The ClientHello is malformed or too long.
    ClientHello, "client-hello", Downstream, 0;
    /// The listener speaks TLS, and what came first is no ClientHello, or too long a one.
    TlsHello, "tls-hello", Downstream, 400;
    /// No certificate of the listener is for the name that the client asked for.
    TlsNoCertificate, "tls-no-certificate", Downstream, 0;
    /// The client has no version, cipher suite, group or protocol of TLS that the listener takes.
    TlsNothingInCommon, "tls-nothing-in-common", Downstream, 0;
    /// The client's certificate is missing or not good.
    TlsClientCertificate, "tls-client-certificate", Downstream, 0;
    /// The client ended the handshake with an alert: it takes our certificate for bad, for one.
    TlsAlert, "tls-alert", Downstream, 0;
    /// The client broke the protocol of TLS.
    TlsProtocol, "tls-protocol", Downstream, 0;
    /// The handshake of TLS was not done in time.
    TlsTimeout, "tls-timeout", Downstream, 0;
    /// The request's host is none that the certificate of its connection is for.
    Misdirected, "misdirected", Downstream, 421;
    /// The backend's certificate is not good.
    UpstreamCertificate, "upstream-certificate", Upstream, 502;
    /// The backend does not speak TLS, or none that we do.
    UpstreamTls, "upstream-tls", Upstream, 502;
    /// The backend of a datagram flow is down; what comes next goes to another one.
    BackendDown, "backend-down", Upstream, 503;
    /// The backend left the config, and the time to end with it was over.
    BackendRemoved, "backend-removed", Us, 503;
    /// The listener left the config, or speaks another protocol now.
    ListenerRemoved, "listener-removed", Us, 503;
    /// A socket had no room for a datagram.
    NoRoom, "no-room", Us, 0;
    /// A datagram is longer than the way to its receiver takes.
    DatagramTooLong, "datagram-too-long", Downstream, 0;
}

impl CloseReason {
    /// Why a datagram may be dropped.
    pub const OF_DATAGRAMS: &'static [Self] = &[
        Self::ConnectionsLimit,
        Self::ConnectionsPerIp,
        Self::ConnectionsListener,
        Self::Memory,
        Self::NoBackend,
        Self::Unresolved,
        Self::ConnectFailed,
        Self::NoRoom,
        Self::QueueFull,
        Self::DatagramTooLong,
        Self::ClientGone,
        Self::Resources,
        Self::Draining,
        Self::ListenerRemoved,
    ];
}
