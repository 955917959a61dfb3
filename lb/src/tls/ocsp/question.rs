//! Who is asked of a certificate, and what; whether an answer is to that.

use std::{fmt, net::IpAddr};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer as _,
};

use super::{
    SKEW, Staple, Unusable,
    answer::{Answer, CertId, SHA1},
    der::{INTEGER, OBJECT, OCTET_STRING, SEQUENCE, write},
};

/// `id-ad-ocsp`.
const OCSP: &str = "1.3.6.1.5.5.7.48.1";
/// Parameters of a hash: none, written out.
const NULL: &[u8] = &[5, 0];

/// Who is asked, over plain HTTP: answers are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Responder {
    /// A name, or an address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Host and port, as `Host` has them.
    pub authority: String,
    /// What is asked for there.
    pub path: String,
}

impl Responder {
    /// Of a URL; `None`: it is not of HTTP, or has no host.
    fn of(url: &str) -> Option<Self> {
        let url: http::Uri = url.parse().ok()?;
        let authority = url.authority().filter(|authority| !authority.as_str().contains('@'))?;
        if url.scheme_str() != Some("http") || authority.host().is_empty() {
            return None;
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some(Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.as_str().to_owned(),
            path: url.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    /// Where it is, if that stands in its URL.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Question {
    responder: Responder,
    id: CertId<Vec<u8>>,
    issuer: CertificateDer<'static>,
}

impl Question {
    /// About the first certificate of a chain in PEM, behind which its issuer stands.
    ///
    /// # Errors
    /// There is nobody to ask, or no issuer to ask by.
    pub fn of_pem(chain: &[u8]) -> Result<Self, String> {
        let mut chain = CertificateDer::pem_slice_iter(chain).map_while(Result::ok);
        let missing = "names no responder of OCSP that is asked by http";
        let (own, issuer) = (chain.next().ok_or(missing)?, chain.next());
        let (_, own) = X509Certificate::from_der(&own).map_err(|_| missing)?;
        let responder = responder(&own).ok_or(missing)?;
        let issuer = issuer.ok_or("holds no certificate of its issuer, by which its state is asked for")?;
        let (_, parsed) = X509Certificate::from_der(&issuer).map_err(|_| "certificate 2 is none")?;
        let hash = |bytes: &[u8]| digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec();
        // What responders keep answers by (RFC 5019, 2.1.1).
        let id = CertId {
            hash: SHA1.to_vec(),
            name: hash(own.issuer().as_raw()),
            key: hash(&parsed.public_key().subject_public_key.data),
            serial: own.raw_serial().to_vec(),
        };
        drop(parsed);
        Ok(Self { responder, id, issuer: issuer.into_owned() })
    }

    /// Who is asked.
    pub const fn responder(&self) -> &Responder {
        &self.responder
    }

    /// `OCSPRequest` (RFC 6960, 4.1.1). Without a nonce: answers may be kept.
    pub fn request(&self) -> Vec<u8> {
        let CertId { hash, name, key, serial } = &self.id;
        let id = write(
            SEQUENCE,
            &[
                &write(SEQUENCE, &[&write(OBJECT, &[hash]), NULL]),
                &write(OCTET_STRING, &[name]),
                &write(OCTET_STRING, &[key]),
                &write(INTEGER, &[serial]),
            ],
        );
        // A list of one request, in what would be signed, in the whole.
        (0..4).fold(id, |inner, _| write(SEQUENCE, &[&inner]))
    }

    /// What an answer that came at `now`, in seconds since 1970, is worth.
    ///
    /// # Errors
    /// It may not be shown.
    pub fn judge(&self, der: &[u8], now: i64) -> Result<Staple, Unusable> {
        let answer = Answer::read(der)?;
        let CertId { hash, name, key, serial } = &self.id;
        let id = CertId { hash: &**hash, name: &**name, key: &**key, serial: &**serial };
        let about = answer.about.iter().find(|about| about.id == id).ok_or(Unusable::OfAnother)?;
        let issuer = X509Certificate::from_der(&self.issuer).map_err(|_| Unusable::Signature)?.1;
        if !answer.is_signed(&issuer, now) {
            return Err(Unusable::Signature);
        }
        about.is_good?;
        let next_update = about.next_update.ok_or(Unusable::Endless)?;
        if about.this_update > now + SKEW {
            return Err(Unusable::Early);
        }
        if next_update <= now {
            return Err(Unusable::Late);
        }
        Ok(Staple { der: der.to_vec(), this_update: about.this_update, next_update: Some(next_update) })
    }
}

/// The first one that is asked by HTTP.
fn responder(certificate: &X509Certificate<'_>) -> Option<Responder> {
    let access = certificate.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityInfoAccess(access) => Some(access),
        _ => None,
    });
    let mut descriptions = access.flat_map(|access| access.iter());
    descriptions.find_map(|description| match &description.access_location {
        GeneralName::URI(url) if description.access_method.to_id_string() == OCSP => Responder::of(url),
        _ => None,
    })
}
