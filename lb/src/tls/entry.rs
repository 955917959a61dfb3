//! One `[tls.NAME]` as it is used: certificates with their keys, and on what terms they are shown.

use std::{fmt, sync::Arc};

use rustls::{
    CipherSuite, ServerConfig, SignatureAlgorithm,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{
    certificate::Certificate,
    client_auth::Clients,
    name::CertificateName,
    profile::{provider, versions},
    sessions::Sessions,
    tickets::Tickets,
};
use crate::config::{ClientField, TlsProfile};

/// What an entry is made of.
pub struct Parts {
    /// Its name in the config.
    pub name: Arc<str>,
    /// One for each type of key, at least one.
    pub certificates: Vec<Certificate>,
    /// Names that it is for; `None`: those of the certificates.
    pub names: Option<Vec<CertificateName>>,
    /// Whether it is for whoever asks for no name, or for one that no other has.
    pub is_default: bool,
    /// Versions and ciphers.
    pub profile: TlsProfile,
    /// What is asked of clients; `None`: nothing.
    pub clients: Option<Clients>,
    /// What carries sessions on, but where data may come early.
    pub tickets: Arc<Tickets>,
    /// What may be said before hands are shaken; `None`: nothing.
    pub early_data: Option<EarlyData>,
}

/// How data may come early.
#[derive(Clone, Debug)]
pub struct EarlyData {
    /// Most bytes of it on one connection.
    pub bytes_max: u32,
    /// What carries sessions on.
    pub sessions: Arc<Sessions>,
}

/// One `[tls.NAME]`, as it is used.
pub struct Entry {
    name: Arc<str>,
    names: Vec<CertificateName>,
    is_default: bool,
    certificates: Vec<Certificate>,
    client_fields: Vec<(Arc<str>, ClientField)>,
    tickets: Arc<Tickets>,
    early_data: Option<EarlyData>,
    config: ServerConfig,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("name", &self.name).field("names", &self.names).finish_non_exhaustive()
    }
}

impl Entry {
    /// # Errors
    /// rustls refuses its own defaults.
    pub fn new(parts: Parts) -> Result<Self, String> {
        let Parts { name, certificates, names, is_default, profile, clients, tickets, early_data } = parts;
        let names = names.unwrap_or_else(|| {
            let mut names: Vec<_> = certificates.iter().flat_map(|one| one.names().iter().cloned()).collect();
            names.sort_unstable();
            names.dedup();
            names
        });
        let provider = Arc::new(provider(profile));
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions(profile))
            .map_err(|error| error.to_string())?;
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(clients.verifier(provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut ranked: Vec<_> = certificates.iter().collect();
        ranked.sort_by_key(|one| Self::rank(one.key_type()));
        let keys = Keys(ranked.into_iter().map(|one| one.key().clone()).collect());
        let mut config = builder.with_cert_resolver(Arc::new(keys));
        match &early_data {
            None => {
                // Sessions are kept by clients alone, in tickets.
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.ticketer = tickets.clone();
            }
            Some(EarlyData { bytes_max, sessions }) => {
                config.session_storage = sessions.clone();
                config.max_early_data_size = *bytes_max;
                // What came early is answered before hands are shaken.
                config.send_half_rtt_data = true;
            }
        }
        // For the kernel.
        config.enable_secret_extraction = true;
        let client_fields = clients.map(|clients| clients.fields).unwrap_or_default();
        Ok(Self { name, names, is_default, certificates, client_fields, tickets, early_data, config })
    }

    /// Its name in the config.
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Names that it is for, each once.
    pub fn names(&self) -> &[CertificateName] {
        &self.names
    }

    /// Whether it is for whoever asks for no name, or for one that no other has.
    pub const fn is_default(&self) -> bool {
        self.is_default
    }

    /// Fields that tell backends who a client is, by [`tell`](super::tell); lower-cased. No client's own may pass.
    pub fn client_fields(&self) -> &[(Arc<str>, ClientField)] {
        &self.client_fields
    }

    /// What carries its sessions on.
    pub const fn tickets(&self) -> &Arc<Tickets> {
        &self.tickets
    }

    /// How data may come early, if they may.
    pub const fn early_data(&self) -> Option<&EarlyData> {
        self.early_data.as_ref()
    }

    /// What it shows.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Where a certificate stands with a key of this type, which clients get that know several: first the least.
    pub fn rank(key_type: &str) -> u8 {
        match key_type {
            "ecdsa" => 0,
            "ed25519" => 1,
            _ => 2,
        }
    }

    pub(super) const fn config(&self) -> &ServerConfig {
        &self.config
    }
}

/// Keys of several types, the cheapest to sign with first.
#[derive(Debug)]
struct Keys(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Keys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| {
            key.key.choose_scheme(hello.signature_schemes()).is_some()
                && is_usable(key.key.algorithm(), hello.cipher_suites())
        };
        // Where none fits the handshake fails by itself, and says why.
        self.0.iter().find(fits).or(self.0.first()).cloned()
    }
}

/// Whether a client that knows these suites takes a key of this type: suites of TLS 1.2 name one.
fn is_usable(algorithm: SignatureAlgorithm, suites: &[CipherSuite]) -> bool {
    let wanted = match algorithm {
        SignatureAlgorithm::RSA => "_RSA_",
        _ => "_ECDSA_",
    };
    suites.iter().any(|suite| match suite.as_str() {
        Some(name) => name.starts_with("TLS13_") || (name.contains("ECDHE") && name.contains(wanted)),
        None => false,
    })
}
