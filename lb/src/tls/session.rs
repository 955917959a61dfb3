//! One connection: records in, bytes out, and the other way round.
//!
//! ```text
//!  ClientHello --Greeting--> certificate, terms --> Session
//!  records from the peer --> Session::open --> bytes, and records for the peer while hands are shaken
//!                  bytes --> Session::seal --> records for the peer
//! ```
//! Nothing is kept here but keys: who calls owns what is not whole yet, and what is to be sent.

use std::{fmt, sync::Arc};

use rustls::{
    AlertDescription, ClientConfig, Error, HandshakeKind, ProtocolVersion, ServerConfig,
    client::UnbufferedClientConnection,
    pki_types::{CertificateDer, ServerName},
    server::{Accepted, Acceptor, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus},
};

use super::{
    ktls::{self, KernelSuites},
    offer,
    opener::{Opener, Rest},
    refusal::{Refusal, Why, why},
    server::Server,
    wipe::Wiped,
};

/// Longest ClientHello that is waited for, with its records' headers: RFC 8446 lets it be longer, and nobody's is.
const HELLO_BYTES_MAX: usize = 64 << 10;
/// Payload of a record (RFC 8446, 5.1).
const RECORD_BYTES: usize = 16 << 10;
/// Most that a record has around its payload, in any version and suite (RFC 5246, 6.2.3; RFC 8446, 5.2).
const RECORD_EXTRA_MAX: usize = 64;
/// Room for what is said beside what is sealed: a change of keys, an end.
const UPDATE_BYTES_MAX: usize = 256;

/// Waits for a whole ClientHello, however it is cut.
#[derive(Default)]
pub struct Greeting {
    acceptor: Acceptor,
    /// All that came; the connection is made of it.
    bytes: Vec<u8>,
}

impl fmt::Debug for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Greeting").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Greeting {
    /// More has come. `Some`: it is whole; with the session come all bytes, for [`Session::open`].
    ///
    /// # Errors
    /// It is none, or `server` has nothing for it.
    pub fn handle(&mut self, bytes: &[u8], server: &Server) -> Result<Option<(Session, Vec<u8>)>, Refusal> {
        self.bytes.extend_from_slice(bytes);
        let (mut rest, mut accepted) = (bytes, None);
        while accepted.is_none() && !rest.is_empty() {
            let read = self.acceptor.read_tls(&mut rest);
            let taken = self.acceptor.accept().map_err(|(error, mut alert)| {
                let mut records = Vec::new();
                // To a vector nothing is refused.
                let _ = alert.write_all(&mut records);
                if records.is_empty() {
                    records = self::alert(AlertDescription::DecodeError);
                }
                let why = if why(&error) == Why::NothingInCommon { Why::NothingInCommon } else { Why::Hello };
                Refusal { why, alert: records, text: error.to_string() }
            })?;
            match (read, taken) {
                (_, Some(whole)) => accepted = Some(whole),
                (Ok(1..), None) => {}
                (_, None) => break,
            }
        }
        match accepted {
            Some(accepted) => self.begin(&accepted, server).map(Some),
            None if self.bytes.len() > HELLO_BYTES_MAX => {
                let text = format!("a ClientHello of more than {HELLO_BYTES_MAX} bytes");
                Err(Refusal { why: Why::Hello, alert: alert(AlertDescription::DecodeError), text })
            }
            None => Ok(None),
        }
    }

    fn begin(&mut self, accepted: &Accepted, server: &Server) -> Result<(Session, Vec<u8>), Refusal> {
        let hello = accepted.client_hello();
        let config = server.choose(&hello).map_err(|no| Refusal {
            why: Why::NoCertificate,
            alert: alert(AlertDescription::UnrecognisedName),
            text: no.to_string(),
        })?;
        let mut session = Session::server(config)?;
        session.hello_bytes = offer::early_data(&self.bytes).unwrap_or(0);
        session.offers_early = session.hello_bytes > 0;
        session.name = hello.server_name().map(Into::into);
        Ok((session, std::mem::take(&mut self.bytes)))
    }
}

/// A fatal alert in the clear, as nothing is agreed on yet (RFC 8446, 6).
fn alert(description: AlertDescription) -> Vec<u8> {
    vec![21, 3, 3, 0, 2, 2, u8::from(description)]
}

/// What was agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Name that the client asked for.
    pub name: Option<Box<str>>,
    /// What is spoken within, by ALPN (RFC 7301).
    pub protocol: Option<Box<[u8]>>,
    /// Version and cipher suite, such as `TLSv1.3 TLS13_AES_128_GCM_SHA256`.
    pub spelled: Box<str>,
    /// Whether a former session went on.
    pub is_resumed: bool,
    /// What the peer has shown, its own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
}

/// See the module.
pub struct Session {
    connection: Connection,
    name: Option<Box<str>>,
    /// Records for the peer that come first.
    unsent: Vec<u8>,
    /// Records that have not come whole. rustls remembers where in them it is, so that nothing else may stand there.
    gathered: Vec<u8>,
    has_ended: bool,
    /// The client has said that data come early.
    offers_early: bool,
    /// Of the records that come first, those before what comes early.
    hello_bytes: usize,
    /// Data came early, and were taken.
    has_early: bool,
    /// What came was refused. rustls would go on where it was, in bytes that are not there any more.
    is_broken: bool,
}

enum Connection {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Whether there may be more in what is there.
enum Step {
    Again,
    Ended,
    Enough,
}

impl Session {
    fn server(config: Arc<ServerConfig>) -> Result<Self, Refusal> {
        let made = UnbufferedServerConnection::new(config);
        let connection = made.map_err(|error| Refusal::new(&error, Vec::new()))?;
        Ok(Self {
            connection: Connection::Server(Box::new(connection)),
            name: None,
            unsent: Vec::new(),
            gathered: Vec::new(),
            has_ended: false,
            offers_early: false,
            hello_bytes: 0,
            has_early: false,
            is_broken: false,
        })
    }

    /// With a server that has this name or is at this address. [`Session::open`] of nothing then says the first.
    ///
    /// # Errors
    /// rustls refuses the config.
    pub(super) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Refusal> {
        let made = UnbufferedClientConnection::new(config, name);
        let connection = made.map_err(|error| Refusal::new(&error, Vec::new()))?;
        Ok(Self {
            connection: Connection::Client(Box::new(connection)),
            name: None,
            unsent: Vec::new(),
            gathered: Vec::new(),
            has_ended: false,
            offers_early: false,
            hello_bytes: 0,
            has_early: false,
            is_broken: false,
        })
    }

    /// Whether the handshake goes on.
    pub fn is_handshaking(&self) -> bool {
        match &self.connection {
            Connection::Server(connection) => connection.is_handshaking(),
            Connection::Client(connection) => connection.is_handshaking(),
        }
    }

    /// Whether what has come may be somebody's who only repeats it: it came early, and hands are not shaken yet. Bytes may be
    /// sealed by then, and what was agreed on is known.
    pub fn is_early(&self) -> bool {
        self.has_early && self.is_handshaking()
    }

    /// Whether data were taken that the client said would come early; `None`: it said nothing of it, or its session
    /// goes on and none came, of which rustls does not tell whether any were waited for.
    pub fn took_early(&self) -> Option<bool> {
        let goes_on = match &self.connection {
            Connection::Server(connection) => connection.handshake_kind() == Some(HandshakeKind::Resumed),
            Connection::Client(_) => false,
        };
        (self.offers_early && (self.has_early || !goes_on)).then_some(self.has_early)
    }

    /// What was agreed on, once hands are shaken.
    pub fn terms(&self) -> Terms {
        let common = self.common();
        Terms {
            name: self.name.clone(),
            protocol: common.alpn_protocol().map(Into::into),
            spelled: {
                let version = match common.protocol_version() {
                    Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                    _ => "TLSv1.3",
                };
                let suite = common.negotiated_cipher_suite().map(|suite| suite.suite());
                format!("{version} {}", suite.and_then(|suite| suite.as_str()).unwrap_or("-")).into()
            },
            is_resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
            chain: common.peer_certificates().map(<[_]>::to_vec).unwrap_or_default(),
        }
    }

    /// Records have come, however they are cut. What they say goes behind `plain`; what is to be sent stands before whatever
    /// is sealed next, or is taken by [`Session::take_unsent`].
    ///
    /// # Errors
    /// They break the protocol, or the peer is not who it should be. Nothing more can be opened or sealed.
    pub fn open(&mut self, records: &mut [u8], plain: &mut Vec<u8>) -> Result<(), Refusal> {
        if self.gathered.is_empty() {
            // As often as rustls is asked for something it looks at early data that it does not take, and bears only so much
            // of that: so what it has to say to the greeting comes first.
            let greeting = std::mem::take(&mut self.hello_bytes).min(records.len());
            let greeted = if greeting > 0 { self.process(&mut records[..greeting], plain)? } else { 0 };
            let consumed = greeted + self.process(&mut records[greeted..], plain)?;
            self.gathered.extend_from_slice(&records[consumed..]);
            return Ok(());
        }
        let mut gathered = std::mem::take(&mut self.gathered);
        gathered.extend_from_slice(records);
        let consumed = self.process(&mut gathered, plain)?;
        // Who waits keeps no memory for what may come.
        if consumed < gathered.len() {
            gathered.drain(..consumed);
            self.gathered = gathered;
        }
        Ok(())
    }

    /// Bytes of the records that are done with, from the front.
    fn process(&mut self, records: &mut [u8], plain: &mut Vec<u8>) -> Result<usize, Refusal> {
        if self.is_broken {
            return Err(Refusal::over());
        }
        let (out, has_ended, has_early) = (&mut self.unsent, &mut self.has_ended, &mut self.has_early);
        let processed = match &mut self.connection {
            Connection::Server(connection) => drive(records, plain, out, has_ended, |records, plain, out| {
                let UnbufferedStatus { discard, state } = connection.process_tls_records(records);
                let stepped = state.and_then(|state| match state {
                    ConnectionState::ReadEarlyData(mut data) => {
                        *has_early = true;
                        while let Some(record) = data.next_record() {
                            plain.extend_from_slice(record?.payload);
                        }
                        Ok(Step::Again)
                    }
                    state => step(state, plain, out),
                });
                (discard, stepped)
            }),
            Connection::Client(connection) => drive(records, plain, out, has_ended, |records, plain, out| {
                let UnbufferedStatus { discard, state } = connection.process_tls_records(records);
                (discard, state.and_then(|state| step(state, plain, out)))
            }),
        };
        self.is_broken = processed.is_err();
        processed
    }

    /// Whether the kernel may seal from here on, as it stands: all that is sealed was sent, and nothing stands between records
    /// that only rustls knows of.
    pub fn may_be_handed_over(&mut self, suites: KernelSuites) -> bool {
        if self.is_broken || self.has_ended || self.is_handshaking() || has_whole(&self.gathered) {
            return false;
        }
        let common = self.common();
        let suite = common.negotiated_cipher_suite().map(|suite| suite.suite());
        if !common.protocol_version().zip(suite).is_some_and(|(version, suite)| suites.has(version, suite)) {
            return false;
        }
        // A change of keys that waits inside comes out.
        let (mut gathered, mut plain) = (std::mem::take(&mut self.gathered), Vec::new());
        let processed = self.process(&mut gathered, &mut plain);
        self.gathered = gathered;
        matches!(processed, Ok(0)) && self.unsent.is_empty() && !self.common().wants_write()
    }

    /// The keys that seal what goes, as the kernel takes them, and what opens what comes.
    ///
    /// # Errors
    /// rustls does not give them away.
    pub fn hand_over(self) -> Result<(Wiped, Opener), Refusal> {
        let refuse = |error: Error| Refusal::new(&error, Vec::new());
        let (secrets, rest) = match self.connection {
            Connection::Server(connection) => {
                let (secrets, rest) = connection.dangerous_into_kernel_connection().map_err(refuse)?;
                (secrets, Rest::Server(rest))
            }
            Connection::Client(connection) => {
                let (secrets, rest) = connection.dangerous_into_kernel_connection().map_err(refuse)?;
                (secrets, Rest::Client(rest))
            }
        };
        let keys = ktls::keys(rest.version(), &secrets.tx.1, secrets.tx.0);
        keys.zip(Opener::new(rest, secrets.rx, self.gathered)).ok_or_else(Refusal::over)
    }

    fn common(&self) -> &rustls::CommonState {
        match &self.connection {
            Connection::Server(connection) => connection,
            Connection::Client(connection) => connection,
        }
    }

    /// Whether the peer has said that it will say no more.
    pub const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Records that are to be sent, and wait for nothing.
    pub fn take_unsent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unsent)
    }

    /// Puts `plain` into records at the front of `out`, which only grows; their length. Once hands are shaken.
    ///
    /// # Errors
    /// The keys are used up, or the connection has ended.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<usize, Refusal> {
        self.write(sealed_bytes_max(plain.len()), out, |traffic, out| match traffic {
            Traffic::Server(mut traffic) => traffic.encrypt(plain, out),
            Traffic::Client(mut traffic) => traffic.encrypt(plain, out),
        })
    }

    /// Says that nothing more will be said: records at the front of `out`; their length.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn seal_end(&mut self, out: &mut Vec<u8>) -> Result<usize, Refusal> {
        self.write(sealed_bytes_max(0), out, |traffic, out| match traffic {
            Traffic::Server(mut traffic) => traffic.queue_close_notify(out),
            Traffic::Client(mut traffic) => traffic.queue_close_notify(out),
        })
    }

    fn write(
        &mut self,
        room: usize,
        out: &mut Vec<u8>,
        write: impl FnOnce(Traffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<usize, Refusal> {
        // A change of keys that sealing has brought about waits inside.
        let mut gathered = std::mem::take(&mut self.gathered);
        let mut plain = Vec::new();
        let consumed = self.process(&mut gathered, &mut plain)?;
        assert!(consumed == 0 && plain.is_empty(), "what has come whole was opened when it came");
        let first = self.unsent.len();
        if out.len() < first + room {
            out.resize(first + room, 0);
        }
        out[..first].copy_from_slice(&self.unsent);
        self.unsent = Vec::new();
        let rest = &mut out[first..];
        let written = match &mut self.connection {
            Connection::Server(connection) => match connection.process_tls_records(&mut gathered).state {
                Ok(ConnectionState::WriteTraffic(traffic)) => write(Traffic::Server(traffic), rest),
                Ok(_) => return Err(Refusal::over()),
                Err(error) => return Err(Refusal::new(&error, Vec::new())),
            },
            Connection::Client(connection) => match connection.process_tls_records(&mut gathered).state {
                Ok(ConnectionState::WriteTraffic(traffic)) => write(Traffic::Client(traffic), rest),
                Ok(_) => return Err(Refusal::over()),
                Err(error) => return Err(Refusal::new(&error, Vec::new())),
            },
        };
        self.gathered = gathered;
        let refuse =
            |error: EncryptError| Refusal { why: Why::Protocol, alert: Vec::new(), text: error.to_string() };
        written.map(|written| first + written).map_err(refuse)
    }
}

enum Traffic<'c> {
    Server(rustls::unbuffered::WriteTraffic<'c, rustls::server::ServerConnectionData>),
    Client(rustls::unbuffered::WriteTraffic<'c, rustls::client::ClientConnectionData>),
}

/// Whether there is a record that was not consumed: rustls keeps those that a longer message begins in.
fn has_whole(records: &[u8]) -> bool {
    records.first_chunk().is_some_and(|&[_, _, _, high, low]: &[u8; 5]| {
        records.len() >= 5 + usize::from(u16::from_be_bytes([high, low]))
    })
}

/// Room that sealing so many bytes takes at most.
pub const fn sealed_bytes_max(plain: usize) -> usize {
    plain + plain.div_ceil(RECORD_BYTES) * RECORD_EXTRA_MAX + UPDATE_BYTES_MAX
}

/// Steps until there is nothing more to do with what is there; bytes that are done with.
fn drive(
    records: &mut [u8],
    plain: &mut Vec<u8>,
    out: &mut Vec<u8>,
    has_ended: &mut bool,
    mut process: impl FnMut(&mut [u8], &mut Vec<u8>, &mut Vec<u8>) -> (usize, Result<Step, Error>),
) -> Result<usize, Refusal> {
    let mut consumed = 0;
    loop {
        let (discard, stepped) = process(&mut records[consumed..], plain, out);
        consumed += discard;
        match stepped {
            Ok(Step::Again) => {}
            Ok(Step::Ended) => *has_ended = true,
            Ok(Step::Enough) => return Ok(consumed),
            Err(error) => {
                // What the peer is told of it waits to be taken. The alert is the last of it: who asks once more has the bad
                // record opened again. By the same bytes, as rustls may remember where it is in them.
                let mut said = std::mem::take(out);
                let mut before = said.len();
                while let (discard, Ok(Step::Again)) = process(&mut records[consumed..], plain, &mut said)
                    && !is_alert(&said[before..])
                {
                    consumed += discard;
                    before = said.len();
                }
                return Err(Refusal::new(&error, said));
            }
        }
    }
}

/// Whether a record is an alert, as far as can be told from outside: by its type, or, in TLS 1.3, by its length, with level,
/// description, inner type and a tag of 16 bytes (RFC 8446, 5.2 and 6).
const fn is_alert(record: &[u8]) -> bool {
    match record {
        [21, ..] => true,
        [23, ..] => record.len() == 5 + 2 + 1 + 16,
        _ => false,
    }
}

fn step<Data>(
    state: ConnectionState<'_, '_, Data>,
    plain: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<Step, Error> {
    match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                plain.extend_from_slice(record?.payload);
            }
            Ok(Step::Again)
        }
        ConnectionState::EncodeTlsData(mut data) => {
            let (start, mut room) = (out.len(), 1 << 10);
            loop {
                out.resize(start + room, 0);
                match data.encode(&mut out[start..]) {
                    Ok(len) => {
                        out.truncate(start + len);
                        return Ok(Step::Again);
                    }
                    Err(EncodeError::InsufficientSize(error)) if error.required_size > room => {
                        room = error.required_size;
                    }
                    Err(error) => {
                        out.truncate(start);
                        return Err(Error::General(error.to_string()));
                    }
                }
            }
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Step::Again)
        }
        ConnectionState::PeerClosed => Ok(Step::Ended),
        // Early data are a server's, who takes them.
        ConnectionState::ReadEarlyData(_)
        | ConnectionState::BlockedHandshake
        | ConnectionState::WriteTraffic(_)
        | ConnectionState::Closed => Ok(Step::Enough),
        _ => Ok(Step::Enough),
    }
}

#[cfg(test)]
mod handed;
#[cfg(test)]
mod tests;
