//! The codes of errors.

use std::fmt;

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
