//! Keys as the kernel takes them, which then seals what goes (kTLS).
//!
//! Source: include/uapi/linux/tls.h, `struct tls12_crypto_info_*`, Linux 6.1.

use std::io;

use rustls::{CipherSuite, ConnectionTrafficSecrets, ProtocolVersion};

use super::wipe::Wiped;

/// Numbers of the versions.
const TLS_1_2: u16 = 0x0303;
const TLS_1_3: u16 = 0x0304;
/// Numbers of the ciphers.
const AES_GCM_128: u16 = 51;
const AES_GCM_256: u16 = 52;
const CHACHA20_POLY1305: u16 = 54;

/// What may be: version, cipher, length of a key.
const SUITES: [(u16, u16, usize); 6] = [
    (TLS_1_2, AES_GCM_128, 16),
    (TLS_1_2, AES_GCM_256, 32),
    (TLS_1_2, CHACHA20_POLY1305, 32),
    (TLS_1_3, AES_GCM_128, 16),
    (TLS_1_3, AES_GCM_256, 32),
    (TLS_1_3, CHACHA20_POLY1305, 32),
];

/// What a kernel seals with; by default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelSuites(u8);

impl KernelSuites {
    /// Those of which `install` takes keys, which are for nothing but this.
    ///
    /// # Errors
    /// It takes none: why not the first.
    pub fn probe(mut install: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<Self> {
        let (mut found, mut lack) = (0, None);
        for (at, (version, cipher, key_bytes)) in SUITES.into_iter().enumerate() {
            match install(Layout { version, cipher }.bytes(&vec![0; key_bytes], &[0; 12], 0).bytes()) {
                Ok(()) => found |= 1 << at,
                Err(error) => lack = lack.or(Some(error)),
            }
        }
        match lack {
            Some(error) if found == 0 => Err(error),
            _ => Ok(Self(found)),
        }
    }

    /// Whether it seals nothing.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether keys of a connection may be handed over.
    pub(super) fn has(self, version: ProtocolVersion, suite: CipherSuite) -> bool {
        let cipher = match suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => AES_GCM_128,
            CipherSuite::TLS13_AES_256_GCM_SHA384
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => AES_GCM_256,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => CHACHA20_POLY1305,
            _ => return false,
        };
        let version = number(version);
        let at = SUITES.iter().position(|known| (known.0, known.1) == (version, cipher));
        at.is_some_and(|at| self.0 & 1 << at != 0)
    }
}

/// One `struct tls12_crypto_info_*`.
struct Layout {
    version: u16,
    cipher: u16,
}

impl Layout {
    fn bytes(&self, key: &[u8], iv: &[u8; 12], seq: u64) -> Wiped {
        // All at once: what grows leaves copies behind.
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&self.version.to_ne_bytes());
        out.extend_from_slice(&self.cipher.to_ne_bytes());
        let (salt, nonce) = if self.cipher == CHACHA20_POLY1305 { iv.split_at(0) } else { iv.split_at(4) };
        match self.version {
            TLS_1_2 if self.cipher != CHACHA20_POLY1305 => out.extend_from_slice(&fresh(nonce)),
            _ => out.extend_from_slice(nonce),
        }
        out.extend_from_slice(key);
        out.extend_from_slice(salt);
        out.extend_from_slice(&seq.to_be_bytes());
        Wiped::from(out)
    }
}

/// Where the kernel may begin to count explicit nonces of AES-GCM in TLS 1.2. rustls has used `base ^ 0`, `base ^ 1`, ...; the
/// kernel adds 1 for each record. One nonce twice would give the key of the tag away, so it counts in the other half.
fn fresh(base: &[u8]) -> [u8; 8] {
    let mut first = [0; 8];
    first[0] = base.first().map_or(0, |byte| !byte & 0x80);
    first
}

/// The keys that seal what goes from record `seq` on, as `setsockopt(SOL_TLS, TLS_TX)` takes them. `None`: the kernel has no
/// such cipher.
pub(super) fn keys(version: ProtocolVersion, secrets: &ConnectionTrafficSecrets, seq: u64) -> Option<Wiped> {
    let version = number(version);
    let (cipher, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (AES_GCM_128, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (AES_GCM_256, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (CHACHA20_POLY1305, key, iv),
        _ => return None,
    };
    let iv = iv.as_ref().first_chunk()?;
    Some(Layout { version, cipher }.bytes(key.as_ref(), iv, seq))
}

fn number(version: ProtocolVersion) -> u16 {
    if version == ProtocolVersion::TLSv1_3 { TLS_1_3 } else { TLS_1_2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_where_the_kernel_looks_for_them() {
        let iv = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        let seq = [0, 0, 0, 0, 0, 0, 0, 9];
        let of = |version, cipher, key: &[u8]| Layout { version, cipher }.bytes(key, &iv, 9);
        let gcm = of(TLS_1_3, AES_GCM_128, &[7; 16]);
        let expected = [&[4, 3, 51, 0][..], &iv[4..], &[7; 16], &iv[..4], &seq].concat();
        assert_eq!(gcm.bytes(), if cfg!(target_endian = "little") { expected } else { gcm.bytes().to_vec() });
        assert_eq!(
            of(TLS_1_3, AES_GCM_256, &[7; 32]).bytes()[4..],
            [&iv[4..], &[7; 32], &iv[..4], &seq].concat()
        );
        for version in [TLS_1_2, TLS_1_3] {
            let chacha = of(version, CHACHA20_POLY1305, &[7; 32]);
            assert_eq!(chacha.bytes()[4..], [&iv[..], &[7; 32], &seq].concat());
        }
        // By RFC 5288 the nonce's explicit part is ours to choose; none of the handshake's comes again.
        for (base, first) in [(0x7f, 0x80), (0x80, 0), (0xff, 0), (0, 0x80)] {
            let iv = [1, 2, 3, 4, base, 6, 7, 8, 9, 10, 11, 12];
            let keys = Layout { version: TLS_1_2, cipher: AES_GCM_128 }.bytes(&[7; 16], &iv, 9);
            assert_eq!(keys.bytes()[4..12], [first, 0, 0, 0, 0, 0, 0, 0]);
        }
    }

    #[test]
    fn a_kernel_is_asked_for_each_suite_and_one_is_enough() {
        let mut asked = Vec::new();
        let found = KernelSuites::probe(|keys| {
            asked.push(keys.len());
            if asked.len() == 5 { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
        });
        assert_eq!(asked, [40, 56, 56, 40, 56, 56]);
        let found = found.unwrap();
        assert!(found.has(ProtocolVersion::TLSv1_3, CipherSuite::TLS13_AES_256_GCM_SHA384));
        assert!(!found.has(ProtocolVersion::TLSv1_3, CipherSuite::TLS13_AES_128_GCM_SHA256));
        assert!(!found.has(ProtocolVersion::TLSv1_2, CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384));
        assert!(!found.has(ProtocolVersion::TLSv1_3, CipherSuite::TLS13_AES_128_CCM_SHA256));
        let none = KernelSuites::probe(|_| Err(io::Error::from_raw_os_error(2)));
        assert_eq!(none.unwrap_err().raw_os_error(), Some(2));
    }
}
