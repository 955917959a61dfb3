//! Records of TLS: the same bytes however they are cut, nothing else where they were touched, whatever is said meanwhile.
//!
//! ```text
//! input = version (bit 0), we are the client (1), hands are shaken before (2) (1 byte) { what is done, how much (1 byte each) }*
//! ```

use std::{
    io::{Read as _, Write as _},
    sync::{Arc, OnceLock},
};

use lb::{
    config::TlsProfile,
    tls::{
        Certificate, Entry, Greeting, KEY_BYTES, Parts, Refusal, Server, Session, TicketKeys, Tickets, Trust,
        Upstream,
    },
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    version::{TLS12, TLS13},
};

use super::Target;
use crate::bytes::show;

/// See the module.
pub const TARGET: Target = Target { name: "tls", run, seeds, words };

const NAME: &str = "a.test";
/// How much is said for each that an input asks for.
const SAID_BYTES: usize = 128;
/// Records of nobody's.
const STRANGE: [&[u8]; 8] = [
    &[20, 3, 3, 0, 1, 1],
    &[21, 3, 3, 0, 2, 1, 0],
    &[21, 3, 3, 0, 2, 2, 40],
    &[22, 3, 3, 0, 4, 24, 0, 0, 1],
    &[23, 3, 3, 0, 0],
    &[23, 3, 3, 0xff, 0xff],
    &[22, 3, 3, 0, 4, 0, 0, 0, 0],
    b"GET / HTTP/1.1\r\n\r\n",
];

/// Of both sides, and of either version.
struct Configs {
    server: Server,
    upstream: Upstream,
    clients: [Arc<ClientConfig>; 2],
    servers: [Arc<ServerConfig>; 2],
}

impl Configs {
    fn get() -> &'static Self {
        static CONFIGS: OnceLock<Configs> = OnceLock::new();
        CONFIGS.get_or_init(|| {
            let CertifiedKey { cert, signing_key } =
                generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
            let (pem, key) = (cert.pem(), signing_key.serialize_pem());
            let certificate = Certificate::of_pem(pem.as_bytes(), key.as_bytes(), None).expect("a pair");
            let parts = Parts {
                name: "a".into(),
                certificates: vec![certificate],
                names: None,
                is_default: true,
                profile: TlsProfile::Default,
                clients: None,
                tickets: Tickets::new(Vec::new(), &TicketKeys::new([7; KEY_BYTES])).expect("tickets"),
                early_data: None,
            };
            let entry = Arc::new(Entry::new(parts).expect("an entry"));
            let trust = Trust::of_pem(pem.as_bytes()).expect("an authority");
            let der = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
            Self {
                server: Server::new(&[entry], &[b"h2", b"http/1.1"]).expect("a server"),
                upstream: Upstream::new(trust, Some(NAME), None, &[b"h2"]).expect("an upstream"),
                clients: [&TLS12, &TLS13].map(|version| client(version, &cert)),
                servers: [&TLS12, &TLS13].map(|version| server(version, &cert, der.clone_key())),
            }
        })
    }
}

fn client(version: &'static SupportedProtocolVersion, cert: &rcgen::Certificate) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a root");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
    let mut config = builder.expect("a version").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn server(
    version: &'static SupportedProtocolVersion,
    cert: &rcgen::Certificate,
    key: PrivatePkcs8KeyDer<'static>,
) -> Arc<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
    let builder = builder.expect("a version").with_no_client_auth();
    let config = builder.with_single_cert(vec![cert.der().clone()], PrivateKeyDer::Pkcs8(key));
    let mut config = config.expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

fn run(input: &[u8]) {
    let Some((&options, script)) = input.split_first() else { return };
    let mut pair = Pair::new(usize::from(options & 1), options & 2 != 0);
    if options & 4 != 0 {
        while pair.deliver(usize::MAX) {}
        assert!(pair.is_up(), "hands were not shaken");
    }
    for (at, step) in script.chunks(2).enumerate() {
        let how_much = step.get(1).map_or(1, |&byte| usize::from(byte));
        pair.step(at, step[0] % 10, how_much);
        pair.check(input);
    }
    while pair.deliver(usize::MAX) {}
    pair.check(input);
    if pair.is_touched {
        return;
    }
    assert!(pair.said == pair.plain, "{} of {} bytes: {}", pair.plain.len(), pair.said.len(), show(input));
    let has_ended = matches!(&pair.ours, Ours::Session(session) if session.has_ended());
    assert_eq!(has_ended, pair.peer_ended, "{}", show(input));
}

/// Ours, as far as it is.
enum Ours {
    Greeting(Box<Greeting>),
    Session(Box<Session>),
}

/// Both ends, and what is between them.
struct Pair {
    ours: Ours,
    peer: Connection,
    /// From the peer to us.
    way: Vec<u8>,
    /// What the peer has said, and what we have read.
    said: Vec<u8>,
    plain: Vec<u8>,
    /// What we have said, and what the peer has read.
    ours_said: Vec<u8>,
    peer_plain: Vec<u8>,
    peer_ended: bool,
    /// We have refused what came.
    is_over: bool,
    /// We have said that we will say no more.
    we_ended: bool,
    /// What came is not what the peer has sent.
    is_touched: bool,
    /// The peer has broken off.
    is_left: bool,
}

impl Pair {
    fn new(version: usize, we_ask: bool) -> Self {
        let configs = Configs::get();
        let name = ServerName::try_from(NAME).expect("a name");
        let (ours, peer) = if we_ask {
            let session = configs.upstream.begin(NAME).expect("a session");
            let peer = ServerConnection::new(configs.servers[version].clone());
            (Ours::Session(Box::new(session)), peer.map(Connection::from))
        } else {
            let peer = ClientConnection::new(configs.clients[version].clone(), name);
            (Ours::Greeting(Box::default()), peer.map(Connection::from))
        };
        let mut pair = Self {
            ours,
            peer: peer.expect("a peer"),
            way: Vec::new(),
            said: Vec::new(),
            plain: Vec::new(),
            ours_said: Vec::new(),
            peer_plain: Vec::new(),
            peer_ended: false,
            is_over: false,
            we_ended: false,
            is_touched: false,
            is_left: false,
        };
        pair.open(&mut []);
        pair.pull();
        pair
    }

    /// Whether hands are shaken.
    fn is_up(&self) -> bool {
        let ours = matches!(&self.ours, Ours::Session(session) if !session.is_handshaking());
        ours && !self.peer.is_handshaking()
    }

    fn step(&mut self, at: usize, what: u8, how_much: usize) {
        match what {
            0 => drop(self.deliver(how_much + 1)),
            1 => while self.deliver(how_much + 1) {},
            2 if self.is_up() && !self.peer_ended && !self.is_left => {
                let said: Vec<u8> = (0..how_much * SAID_BYTES).map(|byte| (byte * 7 + at) as u8).collect();
                // The peer keeps no more than so much.
                let taken = self.peer.writer().write(&said).expect("a peer that takes it");
                self.said.extend_from_slice(&said[..taken]);
            }
            3 if self.is_up() && !self.peer_ended && !self.is_left => drop(self.peer.refresh_traffic_keys()),
            4 => self.seal(at, how_much * SAID_BYTES),
            5 if !self.way.is_empty() => {
                let place = how_much % self.way.len();
                self.way[place] ^= 1 << (at % 8);
                self.is_touched = true;
            }
            6 if self.is_up() && !self.is_left => {
                self.peer.send_close_notify();
                self.peer_ended = true;
            }
            7 => {
                self.way.extend_from_slice(STRANGE[how_much % STRANGE.len()]);
                self.is_touched = true;
            }
            8 => self.end(),
            9 if !self.way.is_empty() => {
                self.way.truncate(how_much % self.way.len());
                self.is_touched = true;
            }
            _ => {}
        }
        self.pull();
    }

    /// What the peer has to send is on its way.
    fn pull(&mut self) {
        while self.peer.wants_write() {
            self.peer.write_tls(&mut self.way).expect("a vector");
        }
    }

    /// So many bytes come to us; false: there were none.
    fn deliver(&mut self, most: usize) -> bool {
        let len = most.min(self.way.len());
        let mut piece: Vec<u8> = self.way.drain(..len).collect();
        self.open(&mut piece);
        self.pull();
        len > 0
    }

    fn open(&mut self, piece: &mut [u8]) {
        if self.we_ended && self.is_touched {
            // In debug builds rustls (0.23.46) asserts that no alert comes behind an end, `CommonState::send_fatal_alert`.
            return;
        }
        let opened = match &mut self.ours {
            Ours::Greeting(greeting) => match greeting.handle(piece, &Configs::get().server) {
                Ok(Some((session, mut bytes))) => {
                    let mut session = Box::new(session);
                    let opened = session.open(&mut bytes, &mut self.plain);
                    self.ours = Ours::Session(session);
                    opened
                }
                other => other.map(drop),
            },
            Ours::Session(session) => session.open(piece, &mut self.plain),
        };
        if let Err(Refusal { alert, text, .. }) = opened {
            assert!(self.is_touched || self.is_left, "{text}");
            self.is_over = true;
            self.push(&alert);
        }
        if let Ours::Session(session) = &mut self.ours {
            let unsent = session.take_unsent();
            self.push(&unsent);
        }
    }

    /// The peer gets what we have for it, at once.
    fn push(&mut self, mut records: &[u8]) {
        while !records.is_empty() && !self.is_left {
            let read = self.peer.read_tls(&mut records).expect("bytes");
            let processed = self.peer.process_new_packets();
            assert!(processed.is_ok() || self.is_touched, "{processed:?}");
            self.is_left = processed.is_err() || read == 0;
            let mut plain = [0; 4096];
            while let Ok(len @ 1..) = self.peer.reader().read(&mut plain) {
                self.peer_plain.extend_from_slice(&plain[..len]);
            }
        }
    }

    fn seal(&mut self, at: usize, len: usize) {
        let Ours::Session(session) = &mut self.ours else { return };
        if session.is_handshaking() {
            return;
        }
        let said: Vec<u8> = (0..len).map(|byte| (byte * 5 + at) as u8).collect();
        let mut out = Vec::new();
        match session.seal(&said, &mut out) {
            Ok(len) => {
                self.ours_said.extend_from_slice(&said);
                self.push(&out[..len]);
            }
            Err(refusal) => assert!(self.is_over || self.we_ended, "{refusal}"),
        }
    }

    fn end(&mut self) {
        let Ours::Session(session) = &mut self.ours else { return };
        if session.is_handshaking() {
            return;
        }
        let mut out = Vec::new();
        if let Ok(len) = session.seal_end(&mut out) {
            self.we_ended = true;
            self.push(&out[..len]);
        }
    }

    /// Neither has read what the other has not said.
    fn check(&self, input: &[u8]) {
        assert!(self.said.starts_with(&self.plain), "{}", show(input));
        assert!(self.ours_said.starts_with(&self.peer_plain), "{}", show(input));
        assert!(self.is_left || self.ours_said.len() == self.peer_plain.len(), "{}", show(input));
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let scripts: [&[u8]; 9] = [
        // Hands are shaken byte by byte, or by sevens; both talk, and end.
        &[1, 0, 2, 3, 1, 0, 4, 3, 6, 0, 1, 0, 8, 0],
        &[1, 6, 4, 200, 2, 200, 1, 6, 2, 0, 2, 1, 1, 255],
        // A change of keys in pieces, with something said between them.
        &[1, 255, 3, 0, 0, 3, 4, 2, 0, 9, 4, 2, 1, 0, 4, 2, 2, 1],
        &[1, 255, 2, 140, 3, 0, 2, 140, 3, 0, 0, 250, 4, 140, 1, 90, 4, 1],
        // What is touched, and what is strange.
        &[1, 255, 2, 1, 5, 9, 1, 2, 4, 1, 8, 0],
        &[1, 255, 2, 1, 0, 8, 5, 9, 1, 2, 4, 1, 8, 0],
        &[5, 40, 1, 50, 4, 1, 8, 0],
        &[1, 255, 7, 3, 1, 1, 4, 1, 7, 5, 1, 1],
        &[0, 90, 9, 30, 1, 0, 6, 0, 1, 0],
    ];
    scripts.iter().flat_map(|script| (0..8).map(|options| [&[options][..], script].concat())).collect()
}

/// One for each that is done.
fn words() -> Vec<Vec<u8>> {
    (0..10).flat_map(|what| [0, 4, 60, 255].map(|how_much| vec![what, how_much])).collect()
}
