//! What the writer of the access log counts.

use super::Counter;

/// Written by the log's thread.
#[derive(Debug, Default)]
pub struct LogMetrics {
    /// Lines written whole.
    pub lines: Counter,
    /// Lines lost because they could not be written, or a change had put an end to the log meanwhile.
    pub failed: Counter,
}
