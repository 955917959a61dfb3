use std::sync::Arc;

use proptest::prelude::*;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    RootCertStore,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    version::{TLS12, TLS13},
};

use super::*;

/// A server's and a client's configs that fit.
pub(super) struct Pair {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Pair {
    pub(super) fn new(version: &'static rustls::SupportedProtocolVersion) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        server.enable_secret_extraction = true;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { server: Arc::new(server), client: Arc::new(client) }
    }

    pub(super) fn begin(&self, name: &str) -> Ends {
        let name = ServerName::try_from(name).unwrap().to_owned();
        let client = Session::client(self.client.clone(), name).unwrap();
        let server = Session::server(self.server.clone()).unwrap();
        Ends { client: End::new(client), server: End::new(server) }
    }
}

/// A session, with what its driver keeps.
pub(super) struct End {
    pub(super) session: Session,
    pub(super) plain: Vec<u8>,
}

impl End {
    fn new(session: Session) -> Self {
        Self { session, plain: Vec::new() }
    }

    /// Bytes come, `cut` at a time.
    pub(super) fn take(&mut self, bytes: &[u8], cut: usize) -> Result<(), Refusal> {
        for piece in bytes.chunks(cut.max(1)) {
            self.session.open(&mut piece.to_vec(), &mut self.plain)?;
        }
        Ok(())
    }

    pub(super) fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let len = self.session.seal(plain, &mut out).unwrap();
        assert!(len <= sealed_bytes_max(plain.len()), "{len} for {}", plain.len());
        out.truncate(len);
        out
    }
}

pub(super) struct Ends {
    pub(super) client: End,
    pub(super) server: End,
}

impl Ends {
    pub(super) fn shake(&mut self, cut: usize) -> Result<(), Refusal> {
        self.client.session.open(&mut [], &mut Vec::new())?;
        loop {
            let up = self.client.session.take_unsent();
            self.server.take(&up, cut)?;
            let down = self.server.session.take_unsent();
            self.client.take(&down, cut)?;
            if up.is_empty() && down.is_empty() {
                return Ok(());
            }
        }
    }
}

#[test]
fn hands_are_shaken_and_terms_are_known() {
    for (version, name) in [(&TLS12, "TLSv1.2 TLS_"), (&TLS13, "TLSv1.3 TLS13_")] {
        let pair = Pair::new(version);
        let mut ends = pair.begin("a.example");
        assert!(ends.client.session.is_handshaking() && ends.server.session.is_handshaking());
        ends.shake(usize::MAX).unwrap();
        assert!(!ends.client.session.is_handshaking() && !ends.server.session.is_handshaking());
        let terms = ends.server.session.terms();
        assert!(terms.spelled.starts_with(name), "{terms:?}");
        assert_eq!(terms.protocol.as_deref(), Some(&b"http/1.1"[..]));
        assert!(!terms.is_resumed && terms.chain.is_empty());
        assert!(!ends.client.session.terms().chain.is_empty());
        // What the client has learnt it may go on with.
        let mut again = pair.begin("a.example");
        again.shake(usize::MAX).unwrap();
        assert!(again.server.session.terms().is_resumed, "{name}");
    }
}

#[test]
fn an_end_is_told_from_a_break() {
    let mut ends = Pair::new(&TLS13).begin("a.example");
    ends.shake(usize::MAX).unwrap();
    let mut out = Vec::new();
    let len = ends.client.session.seal_end(&mut out).unwrap();
    ends.server.take(&out[..len], 7).unwrap();
    assert!(ends.server.session.has_ended());
    // The other way stays open (RFC 8446, 6.1).
    let sealed = ends.server.seal(b"bye");
    ends.client.take(&sealed, 5).unwrap();
    assert_eq!((&*ends.client.plain, ends.client.session.has_ended()), (&b"bye"[..], false));
}

#[test]
fn a_record_that_was_touched_ends_it_with_an_alert() {
    for version in [&TLS12, &TLS13] {
        let mut ends = Pair::new(version).begin("a.example");
        ends.shake(usize::MAX).unwrap();
        let mut sealed = ends.client.seal(b"GET / HTTP/1.1\r\n\r\n");
        let last = sealed.len() - 1;
        sealed[last] ^= 1;
        let refusal = ends.server.take(&sealed, usize::MAX).unwrap_err();
        assert_eq!(refusal.why, Why::Protocol);
        assert!(ends.server.plain.is_empty());
        // Told by a record of its own, which the client can open.
        let alert = ends.client.take(&refusal.alert, usize::MAX).unwrap_err();
        assert_eq!(alert.why, Why::Alert, "{alert}");
    }
}

#[test]
fn who_is_not_trusted_is_refused_on_both_sides() {
    let (one, other) = (Pair::new(&TLS13), Pair::new(&TLS13));
    let mut ends = Pair { server: one.server, client: other.client }.begin("a.example");
    ends.client.session.open(&mut [], &mut Vec::new()).unwrap();
    let hello = ends.client.session.take_unsent();
    ends.server.take(&hello, usize::MAX).unwrap();
    let flight = ends.server.session.take_unsent();
    let refusal = ends.client.take(&flight, usize::MAX).unwrap_err();
    assert_eq!(refusal.why, Why::PeerCertificate);
    assert_eq!(ends.server.take(&refusal.alert, usize::MAX).unwrap_err().why, Why::Alert);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn bytes_are_the_same_however_records_are_cut(
        cut in 1..40_000_usize,
        sizes in prop::collection::vec(0..50_000_usize, 1..6),
        is_old: bool,
    ) {
        let mut ends = Pair::new(if is_old { &TLS12 } else { &TLS13 }).begin("a.example");
        ends.shake(cut).unwrap();
        let mut said = Vec::new();
        for (at, size) in sizes.into_iter().enumerate() {
            let plain: Vec<u8> = (0..size).map(|byte| (byte * 7 + at) as u8).collect();
            said.extend_from_slice(&plain);
            let sealed = ends.server.seal(&plain);
            ends.client.take(&sealed, cut).unwrap();
            prop_assert!(ends.client.plain == said);
            let echoed = ends.client.seal(&plain);
            ends.server.take(&echoed, cut).unwrap();
            prop_assert!(ends.server.plain == said);
        }
        prop_assert!(ends.client.session.gathered.is_empty() && ends.server.session.gathered.is_empty());
    }
}
