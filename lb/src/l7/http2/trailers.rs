//! Fields behind a body.

/// Whether a section of trailers, with what frames it, says nothing.
pub(super) fn is_empty(section: &[u8]) -> bool {
    matches!(section, b"" | b"0\r\n\r\n" | b"\r\n0\r\n\r\n")
}

/// What it says, if anything.
pub(super) const fn read(_: &[u8]) -> Option<http::HeaderMap> {
    None
}

/// Writes it down.
pub(super) const fn write(_: &http::HeaderMap, _: &mut Vec<u8>) {}
