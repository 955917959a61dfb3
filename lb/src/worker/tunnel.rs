//! A connection that has changed to another protocol: bytes both ways, until silence, an end or a drain's deadline.

use std::time::Duration;

use super::{choice::InFlight, connection::Context, drive_relay, stream::Stream, upstream::Upstream};

/// What is left of the exchange that led here; its heads and its room are free again.
pub(super) struct Tunnel<'c> {
    pub(super) upstream: Upstream,
    pub(super) in_flight: InFlight<'c>,
    /// Longest silence of both sides together.
    pub(super) idle: Duration,
}

impl Tunnel<'_> {
    /// Runs it to its end; what either side said behind its head goes first.
    pub(super) async fn drive(self: Box<Self>, context: &Context, client: &mut Stream) {
        let Self { mut upstream, in_flight, idle } = *self;
        let metrics = context.accepted.metrics();
        // What waits is counted when it moves.
        context.count_received(client.take_received().saturating_sub(client.data().len() as u64));
        metrics.upgrades.add(1);
        metrics.tunnels.add(1);
        let _open = Open(context);
        let relay = drive_relay::relay(
            context.local(),
            &context.accepted,
            client,
            &mut upstream.stream,
            &context.deadline,
            idle,
        );
        if let Err(reason) = relay.await {
            context.accepted.fail(reason);
            // The end of a stream says that all has come; that of a connection is not believed to.
            if context.accepted.sink.is_message() {
                context.accepted.sink.close_by_reset();
            }
        }
        drop(in_flight);
        context.accepted.entry.end();
    }
}

/// Counts the tunnel as open until dropped.
struct Open<'c>(&'c Context);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.accepted.metrics().tunnels.sub(1);
    }
}
