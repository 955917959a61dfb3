//! How connections to the backends of one pool are made.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use rustls::{ClientConfig, client::Resumption, pki_types::ServerName};

use super::{
    certificate::Certificate,
    profile::provider,
    refusal::Refusal,
    session::Session,
    trust::{TakesAnyone, Trust},
};
use crate::config::TlsProfile;

/// Sessions of one pool that may be resumed, over all its backends.
const SESSIONS_MAX: usize = 1024;

/// How connections to the backends of one pool are made. It is never changed; workers share it, and the sessions that
/// may be resumed with it.
pub struct Upstream {
    config: Arc<ClientConfig>,
    sni: Option<ServerName<'static>>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("sni", &self.sni).finish_non_exhaustive()
    }
}

impl Upstream {
    /// `sni`: the name that is asked for and that certificates must be for; `None`: that of each backend. `certificate`:
    /// what is shown to backends that ask. `protocols`: what is offered to be spoken within (RFC 7301).
    ///
    /// # Errors
    /// rustls refuses its own defaults, or the name is none.
    pub fn new(
        trust: Trust,
        sni: Option<&str>,
        certificate: Option<&Certificate>,
        protocols: &[&[u8]],
    ) -> Result<Self, String> {
        let provider = Arc::new(provider(TlsProfile::Default));
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match trust {
            Trust::Roots(roots) => builder.with_root_certificates(roots),
            Trust::Anyone => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(TakesAnyone(provider)))
            }
        };
        let mut config = match certificate {
            Some(one) => builder.with_client_cert_resolver(Arc::new(Shown(one.key().clone()))),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        // For the kernel.
        config.enable_secret_extraction = true;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let sni = sni.map(|name| ServerName::try_from(name).map(|name| name.to_owned()));
        let sni = sni.transpose().map_err(|error| error.to_string())?;
        Ok(Self { config: Arc::new(config), sni })
    }

    /// Every connection is a whole handshake: a resumed one would look at no certificate.
    #[must_use]
    pub fn without_resumption(mut self) -> Self {
        Arc::make_mut(&mut self.config).resumption = Resumption::disabled();
        self
    }

    #[cfg(test)]
    pub(super) const fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// A session with a backend of this name or address. [`Session::open`] of nothing then says the first.
    ///
    /// # Errors
    /// rustls refuses the config.
    pub fn begin(&self, backend: &str) -> Result<Session, Refusal> {
        Session::client(self.config.clone(), self.connection(backend))
    }

    /// The name that a backend's certificate must be for; `backend` is its address, or the name that stands for it, with
    /// or without a port. Of an address, and of a socket's path, no server name is sent (RFC 6066, 3).
    pub(super) fn connection(&self, backend: &str) -> ServerName<'static> {
        self.sni.clone().unwrap_or_else(|| name_of(backend))
    }
}

fn name_of(backend: &str) -> ServerName<'static> {
    if let Ok(address) = backend.parse::<SocketAddr>() {
        return address.ip().into();
    }
    if let Ok(address) = backend.parse::<IpAddr>() {
        return address.into();
    }
    let host = backend.rsplit_once(':').map_or(backend, |(host, _)| host);
    let name = ServerName::try_from(host).map(|name| name.to_owned());
    // No certificate is for this one: where they are looked at, none is taken.
    name.unwrap_or_else(|_| IpAddr::from(Ipv4Addr::UNSPECIFIED).into())
}

/// The one certificate that we have, whatever a backend says of those that it takes.
#[derive(Debug)]
struct Shown(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Shown {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        self.0.key.choose_scheme(schemes).map(|_| self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
