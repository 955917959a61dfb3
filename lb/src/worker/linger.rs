//! The end of a connection whose peer may still be sending.

use super::{stream::Stream, timer::Deadline};

/// Bytes thrown away meanwhile.
const BYTES_MAX: usize = 256 << 10;

/// Ends our side, and reads on what still comes until the deadline passes, so that no reset overtakes what was said.
pub(super) async fn linger(stream: &mut Stream, deadline: &Deadline) {
    stream.sink().end(deadline).await;
    let mut left = BYTES_MAX;
    loop {
        let waiting = stream.data().len();
        stream.consume(waiting);
        match stream.fill(deadline).await {
            Ok(1..) if left > stream.data().len() => left -= stream.data().len(),
            _ => return,
        }
    }
}
