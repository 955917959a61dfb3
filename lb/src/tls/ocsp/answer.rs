//! An answer of OCSP, read (RFC 6960, 4.2.1), and who has signed it.

use rustls::crypto::aws_lc_rs;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{
    Unusable,
    der::{ENUMERATED, INTEGER, OBJECT, OCTET_STRING, Reader, SEQUENCE, explicit},
};

/// `id-pkix-ocsp-basic`, the one kind of answers that there is.
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
/// SHA-1, as [`CertId`] has it.
pub(super) const SHA1: &[u8] = &[0x2b, 0x0e, 3, 2, 0x1a];

const GOOD: u8 = 0x80;
const REVOKED: u8 = 0xa1;

/// Most certificates of responders that are looked at.
const CERTIFICATES_MAX: usize = 8;

/// Which certificate is meant: by hashes of its issuer's name and key, and its number. Contents, without tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertId<B> {
    pub(super) hash: B,
    pub(super) name: B,
    pub(super) key: B,
    pub(super) serial: B,
}

/// See the module.
pub(super) struct Answer<'a> {
    pub(super) about: Vec<About<'a>>,
    /// What is signed.
    signed: &'a [u8],
    /// Of an `AlgorithmIdentifier`, without its tag.
    algorithm: &'a [u8],
    signature: &'a [u8],
    certificates: Vec<&'a [u8]>,
}

/// What it says of one certificate.
pub(super) struct About<'a> {
    pub(super) id: CertId<&'a [u8]>,
    /// `Err`: it is not good.
    pub(super) is_good: Result<(), Unusable>,
    pub(super) this_update: i64,
    pub(super) next_update: Option<i64>,
}

impl<'a> Answer<'a> {
    /// # Errors
    /// It is none, or says that there is none.
    pub(super) fn read(der: &'a [u8]) -> Result<Self, Unusable> {
        let mut whole = Reader(der).of(SEQUENCE).ok_or(Unusable::Malformed)?.inside();
        match whole.of(ENUMERATED).ok_or(Unusable::Malformed)?.content {
            [0] => {}
            [status] => return Err(Unusable::Unsuccessful(*status)),
            _ => return Err(Unusable::Malformed),
        }
        Self::basic(whole).ok_or(Unusable::Malformed)
    }

    fn basic(mut whole: Reader<'a>) -> Option<Self> {
        let mut bytes = whole.of(explicit(0))?.inside().of(SEQUENCE)?.inside();
        if bytes.of(OBJECT)?.content != BASIC {
            return None;
        }
        let mut basic = bytes.of(OCTET_STRING)?.inside().of(SEQUENCE)?.inside();
        let data = basic.of(SEQUENCE)?;
        let algorithm = basic.of(SEQUENCE)?.content;
        let signature = basic.bits()?;
        let mut certificates = Vec::new();
        if let Some(all) = basic.maybe(explicit(0)) {
            let mut all = all.inside().of(SEQUENCE)?.inside();
            while let Some(one) = all.any().filter(|_| certificates.len() < CERTIFICATES_MAX) {
                certificates.push(one.whole);
            }
        }
        let mut inside = data.inside();
        inside.maybe(explicit(0));
        // Who says so, and when: the signature tells.
        inside.any()?;
        inside.time()?;
        let mut all = inside.of(SEQUENCE)?.inside();
        let mut about = Vec::new();
        while !all.0.is_empty() {
            about.push(About::read(all.of(SEQUENCE)?.inside())?);
        }
        Some(Self { about, signed: data.whole, algorithm, signature, certificates })
    }

    /// Whether the issuer has signed it, or somebody who may in its place (RFC 6960, 4.2.2.2), at a time.
    pub(super) fn is_signed(&self, issuer: &X509Certificate<'_>, now: i64) -> bool {
        let has_signed = |key: &[u8]| is_signed_by(key, self.signed, self.algorithm, self.signature);
        if has_signed(issuer.public_key().raw) {
            return true;
        }
        let parsed = self.certificates.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1));
        parsed.into_iter().any(|one| {
            let validity = one.validity();
            (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
                && one.issuer().as_raw() == issuer.subject().as_raw()
                && one
                    .extended_key_usage()
                    .is_ok_and(|usage| usage.is_some_and(|usage| usage.value.ocsp_signing))
                && is_vouched_for(&one, issuer)
                && has_signed(one.public_key().raw)
        })
    }
}

impl<'a> About<'a> {
    fn read(mut inside: Reader<'a>) -> Option<Self> {
        let mut id = inside.of(SEQUENCE)?.inside();
        let id = CertId {
            hash: id.of(SEQUENCE)?.inside().of(OBJECT)?.content,
            name: id.of(OCTET_STRING)?.content,
            key: id.of(OCTET_STRING)?.content,
            serial: id.of(INTEGER)?.content,
        };
        let is_good = match inside.any()?.tag {
            GOOD => Ok(()),
            REVOKED => Err(Unusable::Revoked),
            _ => Err(Unusable::Unknown),
        };
        let this_update = inside.time()?;
        let next_update = match inside.maybe(explicit(0)) {
            Some(next) => Some(next.inside().time()?),
            None => None,
        };
        Some(Self { id, is_good, this_update, next_update })
    }
}

fn is_vouched_for(one: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    let mut whole = match Reader(one.as_raw()).of(SEQUENCE) {
        Some(whole) => whole.inside(),
        None => return false,
    };
    let parts = (|| Some((whole.of(SEQUENCE)?.whole, whole.of(SEQUENCE)?.content, whole.bits()?)))();
    parts.is_some_and(|(signed, algorithm, signature)| {
        is_signed_by(issuer.public_key().raw, signed, algorithm, signature)
    })
}

/// Whether a key, given as a `SubjectPublicKeyInfo`, has made a signature: by the algorithms that certificates are taken
/// by, too.
fn is_signed_by(key: &[u8], signed: &[u8], algorithm: &[u8], signature: &[u8]) -> bool {
    let Some(mut key) = Reader(key).of(SEQUENCE).map(|key| key.inside()) else { return false };
    let (Some(kind), Some(key)) = (key.of(SEQUENCE), key.bits()) else { return false };
    let known = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let mut fitting = known.iter().filter(|known| {
        *known.public_key_alg_id() == *kind.content && *known.signature_alg_id() == *algorithm
    });
    fitting.any(|known| known.verify_signature(key, signed, signature).is_ok())
}
