//! What comes over a connection whose sealing the kernel does.
//!
//! ```text
//!  Session --hand_over--> keys of what goes --> the kernel
//!                    `--> keys of what comes --> Opener::open --> bytes
//! ```
//! What comes stays here: a kernel hands out no alert or change of keys beside bytes, says that there is something to read when
//! half a record has come (6.1), and takes no second key before 6.14. rustls gives its keys away only together, so records
//! are told apart here; what opens them, and what follows from a change of keys, is rustls's.

use std::fmt;

use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, HandshakeType, ProtocolVersion,
    SupportedCipherSuite,
    client::ClientConnectionData,
    crypto::cipher::{InboundOpaqueMessage, MessageDecrypter},
    kernel::KernelConnection,
    server::ServerConnectionData,
};

use super::refusal::{Refusal, Why};

/// Type, version, length.
const HEADER_BYTES: usize = 5;
/// Longest record without its header, of the version that has the longer ones (RFC 5246, 6.2.3).
const RECORD_BYTES_MAX: usize = (16 << 10) + (2 << 10);
/// Type and length of a message of the handshake.
const MESSAGE_HEADER_BYTES: usize = 4;
/// Longest message that is put together; tickets are the longest that there are.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Who the peer is not.
pub(super) enum Rest {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

/// See the module.
pub struct Opener {
    rest: Rest,
    keys: Box<dyn MessageDecrypter>,
    seq: u64,
    /// A record that has not come whole.
    gathered: Vec<u8>,
    /// A message of the handshake that has not come whole.
    message: Vec<u8>,
    has_ended: bool,
    is_broken: bool,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("seq", &self.seq).finish_non_exhaustive()
    }
}

/// What ends it all; the alert is for the kernel to seal.
fn refusal(why: Why, alert: AlertDescription, text: &str) -> Refusal {
    Refusal { why, alert: vec![2, u8::from(alert)], text: text.to_owned() }
}

fn broken(alert: AlertDescription, text: &str) -> Refusal {
    refusal(Why::Protocol, alert, text)
}

impl Opener {
    /// `secrets` open what comes from record `seq` on; `gathered` is what has come of that. `None`: nothing opens these.
    pub(super) fn new(
        rest: Rest,
        (seq, secrets): (u64, ConnectionTrafficSecrets),
        gathered: Vec<u8>,
    ) -> Option<Self> {
        let keys = decrypter(rest.suite(), secrets)?;
        Some(Self { rest, keys, seq, gathered, message: Vec::new(), has_ended: false, is_broken: false })
    }

    /// Whether the peer has said that it will say no more.
    pub const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Records have come, however they are cut. What they say goes behind `plain`.
    ///
    /// # Errors
    /// They break the protocol, or want what the kernel cannot. Nothing more can be opened.
    pub fn open(&mut self, records: &mut [u8], plain: &mut Vec<u8>) -> Result<(), Refusal> {
        if self.is_broken {
            return Err(Refusal {
                alert: Vec::new(),
                ..broken(AlertDescription::InternalError, "it is over")
            });
        }
        let opened = if self.gathered.is_empty() {
            let opened = self.open_whole(records, plain);
            opened.map(|done| self.gathered.extend_from_slice(&records[done..]))
        } else {
            let mut gathered = std::mem::take(&mut self.gathered);
            gathered.extend_from_slice(records);
            let opened = self.open_whole(&mut gathered, plain);
            opened.map(|done| {
                // Who waits keeps no memory for what may come.
                if done < gathered.len() {
                    gathered.drain(..done);
                    self.gathered = gathered;
                }
            })
        };
        self.is_broken = opened.is_err();
        opened
    }

    /// Bytes of the records that are whole.
    fn open_whole(&mut self, records: &mut [u8], plain: &mut Vec<u8>) -> Result<usize, Refusal> {
        let mut done = 0;
        while let Some(&[kind, major, minor, high, low]) = records[done..].first_chunk::<HEADER_BYTES>() {
            let len = usize::from(u16::from_be_bytes([high, low]));
            if len > RECORD_BYTES_MAX {
                return Err(broken(AlertDescription::RecordOverflow, "a record is too long"));
            }
            let Some(sealed) = records.get_mut(done + HEADER_BYTES..done + HEADER_BYTES + len) else { break };
            done += HEADER_BYTES + len;
            // Whatever stands behind the end is nothing that was said.
            if self.has_ended {
                continue;
            }
            let kind = ContentType::from(kind);
            if self.is_newest() && kind != ContentType::ApplicationData {
                return Err(broken(AlertDescription::UnexpectedMessage, "a record in the clear"));
            }
            let version = ProtocolVersion::from(u16::from_be_bytes([major, minor]));
            let opened = self.keys.decrypt(InboundOpaqueMessage::new(kind, version, sealed), self.seq);
            let opened = opened.map_err(|error| match error {
                rustls::Error::PeerSentOversizedRecord => {
                    broken(AlertDescription::RecordOverflow, "a record is too long")
                }
                _ => broken(AlertDescription::BadRecordMac, "a record does not open"),
            })?;
            self.seq += 1;
            let (kind, said) = (opened.typ, opened.payload);
            if kind != ContentType::Handshake && !self.message.is_empty() {
                return Err(broken(AlertDescription::UnexpectedMessage, "a message breaks off"));
            }
            match kind {
                ContentType::ApplicationData => plain.extend_from_slice(said),
                ContentType::Alert => self.take_alert(said)?,
                ContentType::Handshake => self.take_handshake(said)?,
                _ => return Err(broken(AlertDescription::UnexpectedMessage, "a record of no known type")),
            }
        }
        Ok(done)
    }

    fn is_newest(&self) -> bool {
        self.rest.version() == ProtocolVersion::TLSv1_3
    }

    fn take_alert(&mut self, said: &[u8]) -> Result<(), Refusal> {
        let &[level, description] = said else {
            return Err(broken(AlertDescription::DecodeError, "an alert of the wrong length"));
        };
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => self.has_ended = true,
            AlertDescription::UserCanceled => {}
            _ if level == 1 && !self.is_newest() => {}
            // Nobody is left to be told.
            description => {
                let text = format!("the peer says {description:?}");
                return Err(Refusal { why: Why::Alert, alert: Vec::new(), text });
            }
        }
        Ok(())
    }

    fn take_handshake(&mut self, said: &[u8]) -> Result<(), Refusal> {
        if !self.is_newest() {
            return Err(broken(AlertDescription::HandshakeFailure, "another handshake is asked for"));
        }
        let mut messages = std::mem::take(&mut self.message);
        messages.extend_from_slice(said);
        let mut rest = &messages[..];
        while let Some((&[kind, a, b, c], behind)) = rest.split_first_chunk::<MESSAGE_HEADER_BYTES>() {
            let len = u32::from_be_bytes([0, a, b, c]) as usize;
            if len > MESSAGE_BYTES_MAX {
                return Err(broken(AlertDescription::DecodeError, "a message is too long"));
            }
            let Some((body, behind)) = behind.split_at_checked(len) else { break };
            self.take_message(HandshakeType::from(kind), body, behind.is_empty())?;
            rest = behind;
        }
        self.message = rest.to_vec();
        Ok(())
    }

    fn take_message(&mut self, kind: HandshakeType, body: &[u8], is_last: bool) -> Result<(), Refusal> {
        match (kind, body, &mut self.rest) {
            // Keys change at the end of a record (RFC 8446, 5.1).
            (HandshakeType::KeyUpdate, [0], _) if is_last => self.change_keys(),
            // The answer would be keys of ours that change, too.
            (HandshakeType::KeyUpdate, [1], _) if is_last => {
                Err(broken(AlertDescription::InternalError, "other keys are asked for, of the kernel"))
            }
            (HandshakeType::NewSessionTicket, ticket, Rest::Client(connection)) => {
                let taken = connection.handle_new_session_ticket(ticket);
                taken.map_err(|_| broken(AlertDescription::DecodeError, "a ticket that is none"))
            }
            _ => Err(broken(AlertDescription::UnexpectedMessage, "a message out of turn")),
        }
    }

    fn change_keys(&mut self) -> Result<(), Refusal> {
        let updated = match &mut self.rest {
            Rest::Server(connection) => connection.update_rx_secret(),
            Rest::Client(connection) => connection.update_rx_secret(),
        };
        let changed =
            updated.ok().and_then(|(seq, secrets)| Some((seq, decrypter(self.rest.suite(), secrets)?)));
        let Some((seq, keys)) = changed else {
            return Err(broken(AlertDescription::InternalError, "there are no other keys"));
        };
        (self.seq, self.keys) = (seq, keys);
        Ok(())
    }
}

impl Rest {
    fn suite(&self) -> SupportedCipherSuite {
        match self {
            Self::Server(connection) => connection.negotiated_cipher_suite(),
            Self::Client(connection) => connection.negotiated_cipher_suite(),
        }
    }

    pub(super) fn version(&self) -> ProtocolVersion {
        match self {
            Self::Server(connection) => connection.protocol_version(),
            Self::Client(connection) => connection.protocol_version(),
        }
    }
}

fn decrypter(
    suite: SupportedCipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Option<Box<dyn MessageDecrypter>> {
    let (key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
        _ => return None,
    };
    Some(match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.decrypter(key, iv),
        SupportedCipherSuite::Tls12(suite) => {
            let fixed = suite.aead_alg.key_block_shape().fixed_iv_len;
            suite.aead_alg.decrypter(key, iv.as_ref().get(..fixed)?)
        }
    })
}
