//! Sessions whose keys were given away: what opens what comes, and where the keys stand.

use rustls::{
    ContentType, SupportedCipherSuite,
    client::ClientConnectionData,
    crypto::cipher::{AeadKey, Iv, MessageEncrypter, OutboundPlainMessage},
    kernel::KernelConnection,
    version::{TLS12, TLS13},
};

use super::{
    tests::{End, Pair},
    *,
};

const VERSIONS: [&rustls::SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn all() -> KernelSuites {
    KernelSuites::probe(|_| Ok(())).unwrap()
}

/// Both ends, hands shaken.
fn shaken(version: &'static rustls::SupportedProtocolVersion) -> (End, Session) {
    let mut ends = Pair::new(version).begin("a.example");
    ends.shake(usize::MAX).unwrap();
    (ends.client, ends.server.session)
}

/// What says whatever one wants, sealed as it should be.
struct Sealer {
    connection: KernelConnection<ClientConnectionData>,
    keys: Box<dyn MessageEncrypter>,
    seq: u64,
}

fn encrypter(
    suite: SupportedCipherSuite,
    secrets: rustls::ConnectionTrafficSecrets,
) -> Box<dyn MessageEncrypter> {
    let (rustls::ConnectionTrafficSecrets::Aes128Gcm { key, iv }
    | rustls::ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets
    else {
        panic!("another suite than the first");
    };
    match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
        SupportedCipherSuite::Tls12(suite) => {
            let (fixed, explicit) = iv.as_ref().split_at(4);
            suite.aead_alg.encrypter(key, fixed, explicit)
        }
    }
}

impl Sealer {
    fn of(session: Session) -> Self {
        let Connection::Client(connection) = session.connection else { panic!("a client") };
        let (secrets, connection) = connection.dangerous_into_kernel_connection().unwrap();
        let keys = encrypter(connection.negotiated_cipher_suite(), secrets.tx.1);
        Self { keys, seq: secrets.tx.0, connection }
    }

    fn record(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let message =
            OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload: payload.into() };
        let sealed = self.keys.encrypt(message, self.seq).unwrap().encode();
        self.seq += 1;
        sealed
    }

    fn change_keys(&mut self) {
        let (seq, secrets) = self.connection.update_tx_secret().unwrap();
        (self.seq, self.keys) = (seq, encrypter(self.connection.negotiated_cipher_suite(), secrets));
    }
}

/// A client that may say anything, and what opens it.
fn sealer(version: &'static rustls::SupportedProtocolVersion) -> (Sealer, Opener) {
    let (client, mut server) = shaken(version);
    assert!(server.may_be_handed_over(all()));
    (Sealer::of(client.session), server.hand_over().unwrap().1)
}

fn data(sealer: &mut Sealer, payload: &[u8]) -> Vec<u8> {
    sealer.record(ContentType::ApplicationData, payload)
}

fn handshake(sealer: &mut Sealer, payload: &[u8]) -> Vec<u8> {
    sealer.record(ContentType::Handshake, payload)
}

#[test]
fn what_comes_opens_however_it_is_cut_and_wherever_the_keys_went_over() {
    let said: Vec<u8> = (0..40_000u32).map(|at| (at % 251) as u8).collect();
    for version in VERSIONS {
        for (first, cut) in [(0, 40_000), (3, 1), (5, 7), (20_000, 16_000)] {
            let (mut client, mut server) = shaken(version);
            let mut sealed = client.seal(&said);
            let (mut plain, behind) = (Vec::new(), sealed.split_off(first));
            server.open(&mut sealed, &mut plain).unwrap();
            assert!(server.may_be_handed_over(all()), "{first}");
            let (_, mut opener) = server.hand_over().unwrap();
            for piece in behind.chunks(cut) {
                opener.open(&mut piece.to_vec(), &mut plain).unwrap();
            }
            assert!(plain == said && !opener.has_ended());
            let mut end = Vec::new();
            let len = client.session.seal_end(&mut end).unwrap();
            opener.open(&mut end[..len], &mut plain).unwrap();
            assert!(opener.has_ended());
            opener.open(&mut [23, 3, 3, 0, 1, 7], &mut plain).unwrap();
            assert_eq!(plain.len(), said.len(), "what stands behind the end is nothing");
        }
    }
}

#[test]
fn the_kernel_goes_on_where_we_were() {
    let (mut client, mut server) = shaken(&TLS13);
    let mut before = Vec::new();
    let len = server.seal(b"before", &mut before).unwrap();
    client.take(&before[..len], usize::MAX).unwrap();
    let suite = server.common().negotiated_cipher_suite().unwrap();
    let (keys, _) = server.hand_over().unwrap();
    // As the kernel reads it: AES-256-GCM.
    let (head, rest) = keys.bytes().split_at(4);
    assert_eq!(head, [0x0304u16.to_ne_bytes(), 52u16.to_ne_bytes()].concat());
    let mut iv = [0; 12];
    iv[..4].copy_from_slice(&rest[40..44]);
    iv[4..].copy_from_slice(&rest[..8]);
    let seq = u64::from_be_bytes(*rest.last_chunk().unwrap());
    assert!(seq > 0, "a word has gone before");
    let key: [u8; 32] = *rest[8..].first_chunk().unwrap();
    let mut keys = suite.tls13().unwrap().aead_alg.encrypter(AeadKey::from(key), Iv::new(iv));
    let payload = b"behind"[..].into();
    let (typ, version) = (ContentType::ApplicationData, ProtocolVersion::TLSv1_2);
    let sealed = keys.encrypt(OutboundPlainMessage { typ, version, payload }, seq).unwrap().encode();
    client.take(&sealed, usize::MAX).unwrap();
    assert_eq!(client.plain, b"beforebehind");
}

#[test]
fn keys_of_what_comes_change() {
    let (mut client, mut opener) = sealer(&TLS13);
    let mut plain = Vec::new();
    let mut take = |mut records: Vec<u8>| opener.open(&mut records, &mut plain);
    // Once in two pieces, once behind other records.
    let update = [24, 0, 0, 1, 0];
    take(handshake(&mut client, &update[..2])).unwrap();
    take(handshake(&mut client, &update[2..])).unwrap();
    client.change_keys();
    let mut records = data(&mut client, b"one");
    records.extend(handshake(&mut client, &update));
    client.change_keys();
    records.extend(data(&mut client, b"two"));
    take(records).unwrap();
    // Ours would have to change.
    let refused = take(handshake(&mut client, &[24, 0, 0, 1, 1])).unwrap_err();
    assert_eq!((refused.why, &refused.alert[..]), (Why::Protocol, &[2, 80][..]));
    assert!(take(data(&mut client, b"three")).is_err(), "it stays over");
    assert_eq!(plain, b"onetwo");
}

#[test]
fn what_breaks_the_protocol_is_refused_and_told() {
    type Bad = fn(&mut Sealer) -> Vec<u8>;
    let cases: [(&rustls::SupportedProtocolVersion, Bad, Why, &[u8]); 13] = [
        (&TLS13, |_| vec![23, 3, 3, 0x48, 1], Why::Protocol, &[2, 22]),
        (&TLS13, |_| vec![21, 3, 3, 0, 2, 2, 40], Why::Protocol, &[2, 10]),
        (&TLS13, |_| vec![20, 3, 3, 0, 1, 1], Why::Protocol, &[2, 10]),
        (&TLS13, |_| vec![23, 3, 3, 0, 0], Why::Protocol, &[2, 20]),
        (&TLS12, |_| vec![23, 3, 3, 0, 1, 7], Why::Protocol, &[2, 20]),
        (&TLS13, |s| s.record(ContentType::Alert, &[2, 40]), Why::Alert, &[]),
        (&TLS12, |s| s.record(ContentType::Alert, &[2, 40]), Why::Alert, &[]),
        (&TLS13, |s| s.record(ContentType::Alert, &[1]), Why::Protocol, &[2, 50]),
        (&TLS13, |s| s.record(ContentType::Heartbeat, &[1]), Why::Protocol, &[2, 10]),
        (&TLS12, |s| handshake(s, &[1, 0, 0, 0]), Why::Protocol, &[2, 40]),
        (&TLS13, |s| handshake(s, &[4, 0, 0, 0]), Why::Protocol, &[2, 10]),
        // Something behind a change of keys, or within a message.
        (&TLS13, |s| handshake(s, &[24, 0, 0, 1, 0, 24]), Why::Protocol, &[2, 10]),
        (&TLS13, |s| [handshake(s, &[24]), data(s, b"x")].concat(), Why::Protocol, &[2, 10]),
    ];
    for (at, (version, bad, why, alert)) in cases.into_iter().enumerate() {
        let (mut client, mut opener) = sealer(if version.version == TLS12.version { &TLS12 } else { &TLS13 });
        let mut plain = Vec::new();
        opener.open(&mut data(&mut client, b"good"), &mut plain).unwrap();
        let refused = opener.open(&mut bad(&mut client), &mut plain).unwrap_err();
        assert_eq!((refused.why, &refused.alert[..]), (why, alert), "case {at}: {refused}");
        assert_eq!(plain, b"good");
        assert!(opener.open(&mut [], &mut plain).is_err(), "it is over");
    }
}

#[test]
fn warnings_are_nothing_in_the_older_version() {
    let (mut client, mut opener) = sealer(&TLS12);
    let mut records = client.record(ContentType::Alert, &[1, 100]);
    records.extend(data(&mut client, b"on"));
    let mut plain = Vec::new();
    opener.open(&mut records, &mut plain).unwrap();
    assert_eq!((&plain[..], opener.has_ended()), (&b"on"[..], false));
}

#[test]
fn keys_stay_where_something_waits() {
    // Tickets that go with the first answer.
    let mut ends = Pair::new(&TLS13).begin("a.example");
    ends.client.session.open(&mut [], &mut Vec::new()).unwrap();
    let hello = ends.client.session.take_unsent();
    assert!(!ends.server.session.may_be_handed_over(all()), "hands are being shaken");
    ends.server.take(&hello, usize::MAX).unwrap();
    let flight = ends.server.session.take_unsent();
    ends.client.take(&flight, usize::MAX).unwrap();
    let finished = ends.client.session.take_unsent();
    ends.server.take(&finished, usize::MAX).unwrap();
    assert!(!ends.server.session.may_be_handed_over(all()), "tickets wait");
    ends.server.session.take_unsent();
    assert!(!ends.server.session.may_be_handed_over(KernelSuites::default()), "no such suite");
    assert!(ends.server.session.may_be_handed_over(all()));
    // A message whose first part was opened stands where only rustls knows of it.
    let mut client = Sealer::of(ends.client.session);
    let part = handshake(&mut client, &[24, 0]);
    ends.server.take(&part, usize::MAX).unwrap();
    assert!(!ends.server.session.may_be_handed_over(all()), "a message has begun");
}
