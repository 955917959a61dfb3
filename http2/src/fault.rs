//! Why connections end.

use crate::{code::Code, hpack, meter::Abuse};

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
