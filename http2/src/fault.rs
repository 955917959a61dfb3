//! Why connections end, and the codes that say so.

use std::fmt;

use crate::{hpack, meter::Abuse};

/// What RST_STREAM and GOAWAY say. Source: RFC 9113, 7.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// Nothing is wrong.
    pub const NO_ERROR: Self = Self(0x0);
    /// The protocol was broken in no more particular way.
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    /// What says it has failed.
    pub const INTERNAL_ERROR: Self = Self(0x2);
    /// More came than a window lets.
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    /// SETTINGS were not acknowledged.
    pub const SETTINGS_TIMEOUT: Self = Self(0x4);
    /// A frame came behind the end of its stream.
    pub const STREAM_CLOSED: Self = Self(0x5);
    /// A frame has a length that it cannot have.
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    /// Nobody has looked at the request.
    pub const REFUSED_STREAM: Self = Self(0x7);
    /// The stream is wanted no more.
    pub const CANCEL: Self = Self(0x8);
    /// A header block cannot be read.
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    /// What was connected with CONNECT has broken.
    pub const CONNECT_ERROR: Self = Self(0xa);
    /// There was too much of something.
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
    /// TLS is not what HTTP/2 demands.
    pub const INADEQUATE_SECURITY: Self = Self(0xc);
    /// It should be asked for with HTTP/1.1.
    pub const HTTP_1_1_REQUIRED: Self = Self(0xd);

    /// Whether it blames the peer: not because all was said, nor for a failure of ours or of another side.
    pub(crate) const fn blames_peer(self) -> bool {
        !matches!(self, Self::NO_ERROR | Self::INTERNAL_ERROR | Self::CANCEL | Self::CONNECT_ERROR)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        match NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "Code({:#x})", self.0),
        }
    }
}

/// Why a connection cannot go on (RFC 9113, 5.4.1): GOAWAY was written, and nothing more is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What comes first is not what HTTP/2 begins with (RFC 9113, 3.4).
    Preface,
    /// A frame is larger than we take, or of a length that its kind does not have (RFC 9113, 4.2).
    FrameSize,
    /// Something else came between the parts of a header block, or a part on its own (RFC 9113, 6.10).
    Continuation,
    /// A frame of a connection on a stream, or the other way round; a stream that its opener may not name, or that was
    /// passed over (RFC 9113, 5.1.1).
    StreamId,
    /// A frame on a stream that was never begun (RFC 9113, 5.1).
    IdleStream,
    /// A head on a stream that has ended (RFC 9113, 5.1).
    ClosedStream,
    /// More padding than frame (RFC 9113, 6.1).
    Padding,
    /// A setting has a value that it cannot have (RFC 9113, 6.5.2).
    Settings,
    /// More came than the connection's window lets, or a window became larger than there are (RFC 9113, 6.9.1).
    Window,
    /// The connection's window was to be opened by nothing (RFC 9113, 6.9).
    WindowUpdate,
    /// PUSH_PROMISE: clients never may (RFC 9113, 8.4), and servers were told not to.
    Promise,
    /// A header block cannot be read.
    Compression(hpack::Error),
    /// There was too much of something.
    Abuse(Abuse),
    /// The caller has ended it.
    Ours(Code),
}

impl Fault {
    /// What the peer is told.
    pub const fn code(self) -> Code {
        match self {
            Self::Preface
            | Self::Continuation
            | Self::StreamId
            | Self::IdleStream
            | Self::Padding
            | Self::Settings
            | Self::WindowUpdate
            | Self::Promise => Code::PROTOCOL_ERROR,
            Self::FrameSize => Code::FRAME_SIZE_ERROR,
            Self::ClosedStream => Code::STREAM_CLOSED,
            Self::Window => Code::FLOW_CONTROL_ERROR,
            Self::Compression(_) => Code::COMPRESSION_ERROR,
            Self::Abuse(_) => Code::ENHANCE_YOUR_CALM,
            Self::Ours(code) => code,
        }
    }

    /// For logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preface => "preface",
            Self::FrameSize => "frame-size",
            Self::Continuation => "continuation",
            Self::StreamId => "stream-id",
            Self::IdleStream => "idle-stream",
            Self::ClosedStream => "closed-stream",
            Self::Padding => "padding",
            Self::Settings => "settings-value",
            Self::Window => "window",
            Self::WindowUpdate => "window-update",
            Self::Promise => "promise",
            Self::Compression(error) => error.name(),
            Self::Abuse(abuse) => abuse.name(),
            Self::Ours(_) => "ours",
        }
    }
}

impl From<hpack::Error> for Fault {
    fn from(error: hpack::Error) -> Self {
        Self::Compression(error)
    }
}

impl From<Abuse> for Fault {
    fn from(abuse: Abuse) -> Self {
        Self::Abuse(abuse)
    }
}
