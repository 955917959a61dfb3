//! What speaks TLS with the code under test: the blocking half of rustls, over real sockets.

use std::{net::TcpStream, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedCipherSuite,
    SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};

pub(crate) use rustls::{
    ClientConfig, ClientConnection,
    version::{TLS12, TLS13},
};

use super::{
    Certificate, Clients, EarlyData, Entry, KEY_BYTES, Parts, Server, Sessions, TicketKeys, Tickets, Trust,
    Upstream,
};
use crate::config::{ClientField, TlsProfile};

pub(crate) type Client = StreamOwned<ClientConnection, TcpStream>;
pub(crate) type Peer = StreamOwned<ServerConnection, TcpStream>;

/// Vouches for both sides.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for these names, and its key, in PEM.
    pub(crate) fn issue(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// How a listener that has one certificate for these names speaks.
    pub(crate) fn server(&self, names: &[&str], protocols: &[&[u8]]) -> Arc<Server> {
        let entry = self.entry("test", names, false);
        Arc::new(Server::new(&[entry], protocols).unwrap())
    }

    pub(crate) fn entry(&self, name: &str, names: &[&str], is_default: bool) -> Arc<Entry> {
        self.entry_with(name, names, is_default, None, None)
    }

    /// As [`Authority::server`], of one that lets data come early.
    pub(crate) fn early_server(
        &self,
        names: &[&str],
        protocols: &[&[u8]],
        bytes_max: u32,
        sessions: &Arc<Sessions>,
    ) -> Arc<Server> {
        let early_data = EarlyData { bytes_max, sessions: sessions.clone() };
        let entry = self.entry_with("early", names, false, None, Some(early_data));
        Arc::new(Server::new(&[entry], protocols).unwrap())
    }

    /// As [`Authority::client_config`], of a client that sends data early where it may.
    pub(crate) fn early_client_config(&self, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let mut config = Arc::unwrap_or_clone(self.client_config(&[&TLS13], protocols));
        config.enable_early_data = true;
        Arc::new(config)
    }

    /// One whose clients show certificates of this authority.
    pub(crate) fn entry_for_known(&self, name: &str, names: &[&str]) -> Arc<Entry> {
        let trust = Trust::of_pem(self.0.pem().as_bytes()).unwrap();
        let fields = vec![("x-client-names".into(), ClientField::Names)];
        let clients = Clients { trust, is_required: true, revoked: Vec::new(), fields };
        self.entry_with(name, names, false, Some(clients), None)
    }

    /// As [`Authority::client_config`], of a client that shows a certificate for `name`.
    pub(crate) fn known_client_config(&self, name: &str) -> Arc<ClientConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
        let builder = builder.unwrap().with_root_certificates(roots);
        Arc::new(builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap())
    }

    fn entry_with(
        &self,
        name: &str,
        names: &[&str],
        is_default: bool,
        clients: Option<Clients>,
        early_data: Option<EarlyData>,
    ) -> Arc<Entry> {
        let (chain, key) = self.issue(names);
        let certificate = Certificate::of_pem(chain.as_bytes(), key.as_bytes(), None).unwrap();
        let profile = TlsProfile::Default;
        let tickets = Tickets::new(name.into(), &TicketKeys::new([7; KEY_BYTES])).unwrap();
        let (name, certificates) = (name.into(), vec![certificate]);
        let parts =
            Parts { name, certificates, names: None, is_default, profile, clients, tickets, early_data };
        Arc::new(Entry::new(parts).unwrap())
    }

    /// How a pool speaks whose backends have certificates for `name`.
    pub(crate) fn upstream(&self, name: &str) -> Arc<Upstream> {
        let trust = Trust::of_pem(self.0.pem().as_bytes()).unwrap();
        Arc::new(Upstream::new(trust, Some(name), None, &[b"http/1.1"]).unwrap())
    }

    pub(crate) fn client_config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&[u8]],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions);
        let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// Clients that know one suite each, with its name.
    pub(crate) fn clients_by_suite(&self) -> Vec<(String, Arc<ClientConfig>)> {
        let suites = aws_lc_rs::DEFAULT_CIPHER_SUITES.iter().filter(|suite| {
            // Keys here are for ECDSA.
            !format!("{:?}", suite.suite()).contains("_RSA_")
        });
        let client = |suite: &SupportedCipherSuite| {
            let sole = CryptoProvider { cipher_suites: vec![*suite], ..aws_lc_rs::default_provider() };
            let builder = ClientConfig::builder_with_provider(Arc::new(sole));
            let builder = builder.with_protocol_versions(&[suite.version()]).unwrap();
            let mut roots = RootCertStore::empty();
            roots.add(self.0.der().clone()).unwrap();
            let config = builder.with_root_certificates(roots).with_no_client_auth();
            (format!("{:?}", suite.suite()), Arc::new(config))
        };
        suites.map(client).collect()
    }

    /// A backend's end of a connection; whoever comes is shown a certificate for `name`.
    pub(crate) fn peer_config(&self, name: &str) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_no_client_auth();
        Arc::new(builder.with_single_cert(vec![certificate.der().clone()], key).unwrap())
    }
}

pub(crate) fn begin(config: &Arc<ClientConfig>, name: &str) -> ClientConnection {
    let name = ServerName::try_from(name).unwrap().to_owned();
    ClientConnection::new(config.clone(), name).unwrap()
}

pub(crate) fn connect(config: &Arc<ClientConfig>, name: &str, socket: TcpStream) -> Client {
    StreamOwned::new(begin(config, name), socket)
}

pub(crate) fn accept(config: &Arc<ServerConfig>, socket: TcpStream) -> Peer {
    StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), socket)
}
