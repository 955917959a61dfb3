//! Requests: one upstream, the forwarding fields every other peer sets.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use pingora::{
    Error, Result,
    http::RequestHeader,
    proxy::{ProxyHttp, Session},
    upstreams::peer::HttpPeer,
};

use crate::access_log::AccessLog;

/// Forwards every request to one backend.
pub(crate) struct Proxy {
    backend: SocketAddr,
    access_log: Option<Arc<AccessLog>>,
}

impl Proxy {
    pub(crate) fn new(backend: SocketAddr, access_log: Option<Arc<AccessLog>>) -> Self {
        Self { backend, access_log }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.backend, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        (): &mut (),
    ) -> Result<()> {
        let client = session.client_addr().and_then(|address| address.as_inet());
        if let Some(client) = client {
            request.append_header("X-Forwarded-For", client.ip().to_string())?;
        }
        request.insert_header("X-Forwarded-Proto", "http")?;
        if let Some(host) = session.req_header().headers.get("Host") {
            request.insert_header("X-Forwarded-Host", host)?;
        }
        Ok(())
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, (): &mut ()) {
        if let Some(access_log) = &self.access_log {
            access_log.write(session, error);
        }
    }
}
