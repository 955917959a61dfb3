//! Bytes: a connection to the backend for each that is accepted, and a copy in both directions.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use pingora::{
    apps::ServerApp, connectors::TransportConnector, protocols::Stream, server::ShutdownWatch,
    upstreams::peer::BasicPeer,
};
use tokio::io::copy_bidirectional_with_sizes;

/// Relays every connection to one backend.
pub(crate) struct Relay {
    backend: BasicPeer,
    connector: TransportConnector,
    buffer_bytes: usize,
}

impl Relay {
    pub(crate) fn new(backend: SocketAddr, buffer_bytes: usize) -> Self {
        Self {
            backend: BasicPeer::new(&backend.to_string()),
            connector: TransportConnector::new(None),
            buffer_bytes,
        }
    }
}

#[async_trait]
impl ServerApp for Relay {
    async fn process_new(
        self: &Arc<Self>,
        mut downstream: Stream,
        _shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        // Either error ends both connections when they are dropped; there is nobody to tell.
        if let Ok(mut upstream) = self.connector.new_stream(&self.backend).await {
            let bytes = self.buffer_bytes;
            let _ = copy_bidirectional_with_sizes(&mut downstream, &mut upstream, bytes, bytes).await;
        }
        None
    }
}
