//! Handshakes between what listeners are made of and what backends are spoken with, or rustls' own client.

use std::sync::Arc;

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm};
use rustls::{
    ClientConfig, ClientConnection, Connection, HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection,
    SupportedCipherSuite, crypto::aws_lc_rs, pki_types::ServerName, server::Acceptor,
};

use super::{certificate::tests::Authority, *};
use crate::config::{ClientField, TlsProfile};

fn certificate(
    authority: &Authority,
    names: &[&str],
    key: &'static SignatureAlgorithm,
    ocsp: Option<Vec<u8>>,
) -> Certificate {
    let (chain, key) = authority.issue(names, key);
    Certificate::of_pem(chain.as_bytes(), key.as_bytes(), ocsp).unwrap()
}

fn trust(authority: &Authority) -> Trust {
    Trust::of_pem(authority.0.pem().as_bytes()).unwrap()
}

fn parts(name: &str, certificates: Vec<Certificate>) -> Parts {
    Parts {
        name: name.into(),
        certificates,
        names: None,
        is_default: true,
        profile: TlsProfile::Default,
        clients: None,
        tickets: Tickets::new(name.into(), &TicketKeys::new([7; KEY_BYTES])).unwrap(),
        early_data: None,
    }
}

fn server(parts: Parts) -> Server {
    Server::new(&[Arc::new(Entry::new(parts).unwrap())], &[b"http/1.1"]).unwrap()
}

fn client(config: Arc<ClientConfig>, name: &str) -> ClientConnection {
    ClientConnection::new(config, ServerName::try_from(name).unwrap().to_owned()).unwrap()
}

/// Moves all that one has for the other.
fn give(from: &mut Connection, to: &mut Connection) -> Result<(), rustls::Error> {
    let mut records = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut records).unwrap();
    }
    let mut records = &records[..];
    while !records.is_empty() {
        to.read_tls(&mut records).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

/// The first message decides what is used for the rest, as in a worker.
fn shake_hands(
    server: &Server,
    mut client: ClientConnection,
) -> Result<(ServerConnection, ClientConnection), rustls::Error> {
    let (mut hello, mut acceptor) = (Vec::new(), Acceptor::default());
    client.write_tls(&mut hello).unwrap();
    acceptor.read_tls(&mut &hello[..]).unwrap();
    let accepted = acceptor.accept().unwrap().unwrap();
    let config = server.choose(&accepted.client_hello()).unwrap();
    let made = accepted.into_connection(config).map_err(|(error, _)| error)?;
    let (mut made, mut client) = (Connection::from(made), Connection::from(client));
    while made.is_handshaking() || client.is_handshaking() || made.wants_write() {
        give(&mut made, &mut client)?;
        give(&mut client, &mut made)?;
    }
    match (made, client) {
        (Connection::Server(server), Connection::Client(client)) => Ok((server, client)),
        _ => unreachable!(),
    }
}

fn upstream(authority: &Authority, certificate: Option<&Certificate>) -> Upstream {
    Upstream::new(trust(authority), None, certificate, &[b"http/1.1"]).unwrap()
}

fn through(
    server: &Server,
    upstream: &Upstream,
    backend: &str,
) -> Result<(ServerConnection, ClientConnection), rustls::Error> {
    let client = ClientConnection::new(upstream.config().clone(), upstream.connection(backend)).unwrap();
    shake_hands(server, client)
}

/// One that knows these suites alone.
fn only(authority: &Authority, suites: &[SupportedCipherSuite]) -> Arc<ClientConfig> {
    let Trust::Roots(roots) = trust(authority) else { panic!() };
    let provider =
        rustls::crypto::CryptoProvider { cipher_suites: suites.to_vec(), ..aws_lc_rs::default_provider() };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

#[test]
fn both_sides_speak_with_what_holds_longest() {
    let authority = Authority::new("ours");
    let server =
        server(parts("one", vec![certificate(&authority, &["a.example"], &PKCS_ECDSA_P256_SHA256, None)]));
    let (made, _) = through(&server, &upstream(&authority, None), "a.example:443").unwrap();
    assert_eq!(made.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(made.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(made.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(made.server_name(), Some("a.example"));
    through(&server, &upstream(&authority, None), "b.example:443").unwrap_err();
    through(&server, &upstream(&authority, None), "unix:/run/a.sock").unwrap_err();
    let other = Authority::new("other");
    through(&server, &upstream(&other, None), "a.example").unwrap_err();
}

#[test]
fn a_client_gets_the_key_that_it_knows() {
    use aws_lc_rs::cipher_suite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 as ECDSA, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 as RSA,
        TLS13_AES_128_GCM_SHA256 as ANY,
    };
    let authority = Authority::new("ours");
    let one = |key| certificate(&authority, &["a"], key, None);
    let all = [&rcgen::PKCS_RSA_SHA256, &PKCS_ED25519, &PKCS_ECDSA_P256_SHA256].map(one);
    let chain = |at: usize| all[at].key().cert.clone();
    let (rsa, ecdsa) = (chain(0), chain(2));
    let server = server(parts("one", all.to_vec()));
    for (suite, shown) in [(ANY, &ecdsa), (ECDSA, &ecdsa), (RSA, &rsa)] {
        let (_, client) = shake_hands(&server, client(only(&authority, &[suite]), "a")).unwrap();
        assert_eq!(client.peer_certificates(), Some(&shown[..]), "{suite:?}");
    }
}

#[test]
fn the_modern_profile_is_of_tls_13_alone() {
    use aws_lc_rs::cipher_suite::{TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS13_AES_128_GCM_SHA256};
    let authority = Authority::new("ours");
    let one = certificate(&authority, &["a"], &PKCS_ECDSA_P256_SHA256, None);
    for (profile, has_12) in
        [(TlsProfile::Default, true), (TlsProfile::Compatible, true), (TlsProfile::Modern, false)]
    {
        let server = server(Parts { profile, ..parts("one", vec![one.clone()]) });
        let of = |suite| shake_hands(&server, client(only(&authority, &[suite]), "a"));
        assert_eq!(of(TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256).is_ok(), has_12, "{profile:?}");
        of(TLS13_AES_128_GCM_SHA256).unwrap();
    }
}

#[test]
fn clients_are_asked_who_they_are() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let own = certificate(&ours, &["a"], &PKCS_ECDSA_P256_SHA256, None);
    let good = certificate(&theirs, &["client"], &PKCS_ECDSA_P256_SHA256, None);
    let bad = certificate(&ours, &["client"], &PKCS_ECDSA_P256_SHA256, None);
    for is_required in [true, false] {
        let fields = vec![("x-client".into(), ClientField::Subject)];
        let clients = Clients { trust: trust(&theirs), is_required, revoked: Vec::new(), fields };
        let server = server(Parts { clients: Some(clients), ..parts("one", vec![own.clone()]) });
        assert_eq!(server.entry(None).unwrap().client_fields().len(), 1);
        let (made, _) = through(&server, &upstream(&ours, Some(&good)), "a").unwrap();
        assert_eq!(tell(made.peer_certificates().unwrap(), ClientField::Subject), "CN=a server");
        assert_eq!(through(&server, &upstream(&ours, None), "a").is_err(), is_required);
        through(&server, &upstream(&ours, Some(&bad)), "a").unwrap_err();
    }
}

#[test]
fn a_client_that_was_revoked_does_not_come_in() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let own = certificate(&ours, &["a"], &PKCS_ECDSA_P256_SHA256, None);
    let clients = |revoked: &[u8]| {
        let (lost, kept) = (theirs.issue_numbered("lost", 7), theirs.issue_numbered("kept", 8));
        let lists = revocations(revoked).unwrap();
        let clients =
            Clients { trust: trust(&theirs), is_required: true, revoked: lists, fields: Vec::new() };
        (server(Parts { clients: Some(clients), ..parts("one", vec![own.clone()]) }), lost, kept)
    };
    let list = theirs.revoke(7);
    for list in [list.pem().unwrap().into_bytes(), list.der().to_vec()] {
        let (server, lost, kept) = clients(&list);
        through(&server, &upstream(&ours, Some(&kept)), "a").unwrap();
        through(&server, &upstream(&ours, Some(&lost)), "a").unwrap_err();
    }
    // Where there are lists, an authority without one vouches for nobody.
    let (server, _, kept) = clients(&ours.revoke(7).pem().unwrap().into_bytes());
    through(&server, &upstream(&ours, Some(&kept)), "a").unwrap_err();
}

#[test]
fn sessions_go_on_wherever_the_keys_are() {
    let authority = Authority::new("ours");
    let one = certificate(&authority, &["a"], &PKCS_ECDSA_P256_SHA256, None);
    let make = |name: &str| server(parts(name, vec![one.clone()]));
    let upstream = upstream(&authority, None);
    let kind = |server: &Server| {
        let (made, client) = through(server, &upstream, "a").unwrap();
        assert_eq!(made.handshake_kind(), client.handshake_kind());
        made.handshake_kind().unwrap()
    };
    assert_eq!(kind(&make("one")), HandshakeKind::Full);
    // Another process, or another box: nothing is common but the keys and the config.
    assert_eq!(kind(&make("one")), HandshakeKind::Resumed);
    assert_eq!(kind(&make("other")), HandshakeKind::Full);
}

#[test]
fn what_the_authority_says_is_stapled() {
    let authority = Authority::new("ours");
    let one =
        certificate(&authority, &["a"], &PKCS_ECDSA_P256_SHA256, Some(vec![0x30, 0x03, 0x0a, 0x01, 0x00]));
    assert_eq!(one.key().ocsp.as_deref(), Some(&[0x30, 0x03, 0x0a, 0x01, 0x00][..]));
    through(&server(parts("one", vec![one])), &upstream(&authority, None), "a").unwrap();
}

/// What a client of rustls' says first, with `early` behind it.
fn flight(config: &Arc<ClientConfig>, early: &[u8]) -> (ClientConnection, Vec<u8>) {
    use std::io::Write as _;
    let mut client = client(config.clone(), "a");
    if !early.is_empty() {
        client.early_data().expect("a ticket that lets data come early").write_all(early).unwrap();
    }
    let mut flight = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut flight).unwrap();
    }
    (client, flight)
}

/// A server's session, and what has been said in it.
fn greet(server: &Server, flight: &[u8]) -> Result<(Session, Vec<u8>), Refusal> {
    let (mut session, mut records) = Greeting::default().handle(flight, server)?.unwrap();
    let mut plain = Vec::new();
    session.open(&mut records, &mut plain)?;
    Ok((session, plain))
}

/// To the end of the handshake, and the tickets behind it.
fn finish(session: &mut Session, client: &mut ClientConnection) {
    let mut records = session.take_unsent();
    while session.is_handshaking() {
        client.read_tls(&mut &records[..]).unwrap();
        client.process_new_packets().unwrap();
        let mut said = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut said).unwrap();
        }
        session.open(&mut said, &mut Vec::new()).unwrap();
        records = session.take_unsent();
    }
    client.read_tls(&mut &records[..]).unwrap();
    client.process_new_packets().unwrap();
}

#[test]
fn what_comes_early_is_taken_once_and_within_bounds() {
    let authority = Authority::new("ours");
    let one = certificate(&authority, &["a"], &PKCS_ECDSA_P256_SHA256, None);
    let sessions = Sessions::new(Vec::new());
    let make = |bytes_max| {
        let early_data = Some(EarlyData { bytes_max, sessions: sessions.clone() });
        server(Parts { early_data, ..parts("one", vec![one.clone()]) })
    };
    let (wide, narrow) = (make(1000), make(899));
    let mut config =
        Arc::unwrap_or_clone(only(&authority, &[aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256]));
    config.enable_early_data = true;
    let config = Arc::new(config);
    let meet = || {
        let (mut client, hello) = flight(&config, b"");
        let (mut session, plain) = greet(&wide, &hello).unwrap();
        assert!(plain.is_empty() && !session.is_early() && session.took_early() != Some(true));
        finish(&mut session, &mut client);
    };
    meet();
    let (_, hello) = flight(&config, &[7; 450]);
    let (mut session, plain) = greet(&wide, &hello).unwrap();
    assert_eq!((plain, session.is_early(), session.took_early()), (vec![7; 450], true, Some(true)));
    // Whatever was agreed on is known, and an answer may go.
    assert!(session.terms().is_resumed && session.terms().spelled.starts_with("TLSv1.3"));
    session.seal(b"answer", &mut Vec::new()).unwrap();
    // Again, here or in another thread: a full handshake, and nothing that came early.
    for _ in 0..2 {
        let replayed = std::thread::scope(|scope| scope.spawn(|| greet(&wide, &hello)).join().unwrap());
        let (session, plain) = replayed.unwrap();
        assert_eq!((plain.len(), session.is_early(), session.took_early()), (0, false, Some(false)));
    }
    // The same of a client that may go on: it shakes hands anew, and says it again.
    meet();
    let (mut client, hello) = flight(&config, &[7; 450]);
    let other = server(Parts {
        early_data: Some(EarlyData { bytes_max: 1000, sessions: Sessions::new(Vec::new()) }),
        ..parts("one", vec![one.clone()])
    });
    let (mut session, _) = greet(&other, &hello).unwrap();
    finish(&mut session, &mut client);
    assert!(!client.is_early_data_accepted() && !session.terms().is_resumed);
    // More than this server takes, by one.
    meet();
    let (_, hello) = flight(&config, &[7; 900]);
    let refusal = greet(&narrow, &hello).unwrap_err();
    assert_eq!((refusal.why, refusal.text.contains("TooMuchEarlyData")), (Why::Protocol, true), "{refusal}");
    assert!(!refusal.alert.is_empty(), "unexpected_message");
}

#[test]
fn what_came_early_is_the_clients_own_once_hands_are_shaken() {
    let authority = Authority::new("ours");
    let one = certificate(&authority, &["a"], &PKCS_ECDSA_P256_SHA256, None);
    let early_data = Some(EarlyData { bytes_max: 100, sessions: Sessions::new(Vec::new()) });
    let server = server(Parts { early_data, ..parts("one", vec![one]) });
    let mut config =
        Arc::unwrap_or_clone(only(&authority, &[aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256]));
    config.enable_early_data = true;
    let config = Arc::new(config);
    for early in [&b""[..], b"one", b"two"] {
        let (mut client, hello) = flight(&config, early);
        let (mut session, plain) = greet(&server, &hello).unwrap();
        assert_eq!((&plain[..], session.is_early()), (early, !early.is_empty()));
        finish(&mut session, &mut client);
        assert!(!session.is_early());
        assert_eq!(client.is_early_data_accepted(), !early.is_empty());
    }
}
