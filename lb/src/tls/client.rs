//! The client's side of a connection.
//!
//! ```text
//!  records from the peer --> ClientSession::handle --> hear()    what it says
//!       what is to be said --> say() --> ClientSession::records  records for the peer
//! ```

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, ClientConnection, Error,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{InvalidDnsNameError, ServerName},
};

use super::trust::{TakesAnyone, Trust};

/// What is offered to be spoken within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// Nothing is said of it.
    Unsaid,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Protocols {
    /// Source: RFC 7301, 6, and RFC 9113, 3.1.
    fn names(self) -> Vec<Vec<u8>> {
        match self {
            Self::Unsaid => Vec::new(),
            Self::Http1 => vec![b"http/1.1".to_vec()],
            Self::Http2 => vec![b"h2".to_vec()],
        }
    }
}

/// How connections to one kind of peers are made. Every one is a whole handshake: a resumed one would look at no
/// certificate.
#[derive(Clone, Debug)]
pub struct Client {
    trust: Trust,
    protocols: Protocols,
    config: Arc<ClientConfig>,
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        self.trust == other.trust && self.protocols == other.protocols
    }
}

impl Client {
    /// TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// rustls refuses its own defaults.
    pub fn new(trust: Trust, protocols: Protocols) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match &trust {
            Trust::Roots(roots) => builder.with_root_certificates(roots.clone()),
            Trust::Anyone => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(TakesAnyone(provider)))
            }
        };
        let mut config = builder.with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = protocols.names();
        Ok(Self { trust, protocols, config: Arc::new(config) })
    }
}

/// Why there is no TLS with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its certificate is not good, and why.
    Certificate(String),
    /// It speaks no TLS, or none that we do.
    Protocol(String),
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(why) => write!(f, "certificate: {why}"),
            Self::Protocol(why) => write!(f, "TLS: {why}"),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let certificate = match error {
            Error::InvalidCertificate(certificate) => certificate,
            Error::NoCertificatesPresented => return Self::Certificate("none".to_owned()),
            Error::InvalidMessage(_) => return Self::Protocol("the answer is none".to_owned()),
            Error::AlertReceived(alert) => return Self::Protocol(format!("alert {alert:?}")),
            other => return Self::Protocol(other.to_string()),
        };
        Self::Certificate(match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired".to_owned(),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "not valid yet".to_owned()
            }
            CertificateError::Revoked => "revoked".to_owned(),
            CertificateError::UnknownIssuer => "of an unknown issuer".to_owned(),
            CertificateError::BadSignature => "its signature is not its issuer's".to_owned(),
            CertificateError::NotValidForName => "for another name".to_owned(),
            CertificateError::NotValidForNameContext { expected, .. } => {
                format!("not for {}", expected.to_str())
            }
            other => other.to_string(),
        })
    }
}

/// One connection.
#[derive(Debug)]
pub struct ClientSession(ClientConnection);

impl ClientSession {
    /// With a peer that has this name, or is at this address. Of an address no server name is sent (RFC 6066, 3).
    ///
    /// # Errors
    /// It is neither a name nor an address.
    pub fn begin(client: &Client, name: &str) -> Result<Self, Fault> {
        let bad = |error: InvalidDnsNameError| Fault::Protocol(format!("server name {name}: {error}"));
        let name = ServerName::try_from(name).map_err(bad)?.to_owned();
        Ok(Self(ClientConnection::new(client.config.clone(), name)?))
    }

    /// Whether the handshake goes on.
    pub fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Records have come. What they say is to be heard before more are given.
    ///
    /// # Errors
    /// They break the protocol, or the certificate is not good. [`Self::records`] then tells the peer so.
    pub fn handle(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while !bytes.is_empty() {
            // Of a slice it fails only where more was heard than was taken away.
            self.0.read_tls(&mut bytes).map_err(|error| Fault::Protocol(error.to_string()))?;
            self.0.process_new_packets()?;
        }
        Ok(())
    }

    /// What the peer says: how many bytes, `None` where nothing is there. No more comes behind 0.
    pub fn hear(&mut self, buffer: &mut [u8]) -> Option<usize> {
        self.0.reader().read(buffer).ok()
    }

    /// Takes what is to be said, as much as there is room for.
    pub fn say(&mut self, bytes: &[u8]) -> usize {
        // To its buffer nothing is refused.
        self.0.writer().write(bytes).unwrap_or(0)
    }

    /// Says that nothing more will be said.
    pub fn say_end(&mut self) {
        self.0.send_close_notify();
    }

    /// Moves the records for the peer behind `to`.
    pub fn records(&mut self, to: &mut Vec<u8>) {
        while self.0.wants_write() {
            // To a vector nothing is refused.
            if self.0.write_tls(to as &mut dyn io::Write).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
    use rustls::{
        ServerConfig, ServerConnection,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    };

    use super::*;

    /// An authority, and what it vouches for.
    struct Authority(CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        fn new(name: &str) -> Self {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
        }

        fn trust(&self) -> Trust {
            Trust::of_pem(self.0.pem().as_bytes()).unwrap()
        }

        /// A server with a certificate for these names, which is good until this year.
        fn server(&self, names: &[&str], until: i32, protocol: &[u8]) -> ServerConnection {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.not_after = date_time_ymd(until, 1, 1);
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.0).unwrap();
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
            let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
            let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
            let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
            config.alpn_protocols = vec![protocol.to_vec()];
            ServerConnection::new(Arc::new(config)).unwrap()
        }
    }

    fn begin(trust: Trust, protocols: Protocols, name: &str) -> ClientSession {
        ClientSession::begin(&Client::new(trust, protocols).unwrap(), name).unwrap()
    }

    /// Lets both talk until neither has anything to say; `cut` bytes at a time.
    fn talk(client: &mut ClientSession, server: &mut ServerConnection, cut: usize) -> Result<(), Fault> {
        let mut records = Vec::new();
        loop {
            client.records(&mut records);
            let is_silent = records.is_empty() && !server.wants_write();
            let mut left = &records[..];
            while !left.is_empty() {
                server.read_tls(&mut left).unwrap();
                // What it thinks of an alert is its own affair.
                _ = server.process_new_packets();
            }
            records.clear();
            let mut answer = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut answer).unwrap();
            }
            for piece in answer.chunks(cut) {
                client.handle(piece)?;
            }
            if is_silent {
                return Ok(());
            }
        }
    }

    fn shake_hands(mut client: ClientSession, mut server: ServerConnection) -> Result<(), Fault> {
        talk(&mut client, &mut server, 4096)?;
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok(())
    }

    #[test]
    fn both_hear_what_was_said_however_it_is_cut() {
        let authority = Authority::new("ours");
        for cut in [1, 7, 4096] {
            let mut server = authority.server(&["a.example"], 4000, b"http/1.1");
            let mut client = begin(authority.trust(), Protocols::Http1, "a.example");
            assert_eq!(client.say(b"before the handshake"), 20);
            talk(&mut client, &mut server, cut).unwrap();
            assert_eq!(server.server_name(), Some("a.example"));
            let mut heard = [0; 64];
            assert_eq!(server.reader().read(&mut heard).unwrap(), 20);
            assert_eq!(client.hear(&mut heard), None);
            server.writer().write_all(b"an answer").unwrap();
            server.send_close_notify();
            talk(&mut client, &mut server, cut).unwrap();
            assert_eq!(client.hear(&mut heard), Some(9));
            assert_eq!(&heard[..9], b"an answer");
            assert_eq!(client.hear(&mut heard), Some(0));
        }
    }

    #[test]
    fn a_certificate_that_is_looked_at_has_to_be_good() {
        let (ours, other) = (Authority::new("ours"), Authority::new("other"));
        let fault = |trust, server, name| {
            let client = begin(trust, Protocols::Unsaid, name);
            shake_hands(client, server).unwrap_err().to_string()
        };
        let server = |names, until| ours.server(names, until, b"h2");
        shake_hands(begin(ours.trust(), Protocols::Unsaid, "127.0.0.1"), server(&["127.0.0.1"], 4000))
            .unwrap();
        assert_eq!(fault(other.trust(), server(&["a"], 4000), "a"), "certificate: of an unknown issuer");
        assert_eq!(fault(ours.trust(), server(&["a"], 2001), "a"), "certificate: expired");
        assert_eq!(fault(ours.trust(), server(&["a"], 4000), "b"), "certificate: not for b");
        assert_eq!(fault(ours.trust(), server(&["a"], 4000), "::1"), "certificate: not for ::1");
        // Nobody looks.
        shake_hands(begin(Trust::Anyone, Protocols::Unsaid, "b"), server(&["a"], 2001)).unwrap();
    }

    #[test]
    fn who_speaks_something_else_is_told_from_who_speaks_tls() {
        let client = || begin(Trust::Anyone, Protocols::Http2, "a");
        let fault = client().handle(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap_err();
        assert_eq!(fault.to_string(), "TLS: the answer is none");
        let server = Authority::new("ours").server(&["a"], 4000, b"http/1.1");
        let fault = shake_hands(client(), server).unwrap_err();
        assert_eq!(fault.to_string(), "TLS: alert NoApplicationProtocol");
    }

    #[test]
    fn clients_are_alike_where_they_take_the_same() {
        let (one, other) = (Authority::new("one"), Authority::new("other"));
        let client = |authority: &Authority, protocols| Client::new(authority.trust(), protocols).unwrap();
        assert_eq!(client(&one, Protocols::Http1), client(&one, Protocols::Http1));
        assert_ne!(client(&one, Protocols::Http1), client(&one, Protocols::Http2));
        assert_ne!(client(&one, Protocols::Http1), client(&other, Protocols::Http1));
        assert_ne!(client(&one, Protocols::Unsaid), Client::new(Trust::Anyone, Protocols::Unsaid).unwrap());
    }
}
