//! A certificate with its chain and its key.

use std::{fmt, ops::RangeInclusive, sync::Arc};

use rustls::{
    Error, SignatureAlgorithm,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use super::{
    name::{CertificateName, address},
    pem_flaw::pem_flaw,
};

/// A certificate with its chain and its key, which fit.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<CertificateName>,
    /// Its first and its last second.
    validity: (i64, i64),
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).finish_non_exhaustive()
    }
}

/// What is wrong with a certificate or its key. No message quotes either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// With the file of the certificate.
    Certificate(String),
    /// With the file of the key.
    Key(String),
}

impl std::error::Error for Flaw {}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(text) | Self::Key(text) => f.write_str(text),
        }
    }
}

impl Certificate {
    /// Of two texts of PEM: a chain, the server's own certificate first and each vouched for by the next, and the key of
    /// the first. `ocsp`: what its authority says of it, in DER.
    ///
    /// # Errors
    /// There is none in them, they cannot be read, or do not fit.
    pub fn of_pem(chain: &[u8], key: &[u8], ocsp: Option<Vec<u8>>) -> Result<Self, Flaw> {
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| Flaw::Certificate(pem_flaw(&error).to_owned()))?;
        let Facts { names, validity } = Facts::of(&chain).map_err(Flaw::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => Flaw::Key("holds no private key in PEM".to_owned()),
            error => Flaw::Key(pem_flaw(&error).to_owned()),
        })?;
        let made = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        let made = made.map_err(|error| match error {
            Error::InconsistentKeys(_) => Flaw::Key("is not the key of the certificate".to_owned()),
            Error::InvalidCertificate(error) => Flaw::Certificate(format!("certificate 1: {error}")),
            Error::General(_) => {
                Flaw::Key("is of a type that is not spoken: RSA, ECDSA or Ed25519 is".to_owned())
            }
            error => Flaw::Key(error.to_string()),
        })?;
        Ok(Self { key: Arc::new(CertifiedKey { ocsp, ..made }), names, validity })
    }

    /// Names that it is for.
    pub fn names(&self) -> &[CertificateName] {
        &self.names
    }

    /// From when until when it is good, in seconds since 1970.
    pub const fn validity(&self) -> RangeInclusive<i64> {
        let (begin, end) = self.validity;
        begin..=end
    }

    /// What its key is.
    pub fn key_type(&self) -> &'static str {
        match self.key.key.algorithm() {
            SignatureAlgorithm::RSA => "rsa",
            SignatureAlgorithm::ECDSA => "ecdsa",
            SignatureAlgorithm::ED25519 => "ed25519",
            _ => "other",
        }
    }

    pub(super) const fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

/// What is read of a chain.
struct Facts {
    names: Vec<CertificateName>,
    validity: (i64, i64),
}

impl Facts {
    fn of(chain: &[CertificateDer<'_>]) -> Result<Self, String> {
        let parse = |(at, der): (usize, &CertificateDer<'_>)| match X509Certificate::from_der(der) {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("certificate {} is none", at + 1)),
        };
        chain.iter().enumerate().try_for_each(parse)?;
        let parsed: Vec<_> =
            chain.iter().filter_map(|der| X509Certificate::from_der(der).ok()).map(|(_, one)| one).collect();
        let Some(first) = parsed.first() else { return Err("holds no certificate in PEM".to_owned()) };
        for (at, pair) in parsed.windows(2).enumerate() {
            if pair[0].issuer().as_raw() != pair[1].subject().as_raw() {
                return Err(format!(
                    "certificate {} is not of the issuer of certificate {}: the server's own stands first, and each is \
                     vouched for by the next",
                    at + 2,
                    at + 1
                ));
            }
        }
        let validity = (first.validity().not_before.timestamp(), first.validity().not_after.timestamp());
        Ok(Self { names: names(first), validity })
    }
}

/// Alternative names that a client may ask for. Common names are none (RFC 9110, 4.3.4).
fn names(certificate: &X509Certificate<'_>) -> Vec<CertificateName> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(CertificateName::of(name)),
        GeneralName::IPAddress(bytes) => Some(CertificateName::of(&address(bytes)?.to_string())),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationList, CertificateRevocationListParams,
        CertifiedIssuer, DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
        SignatureAlgorithm, date_time_ymd,
    };

    use super::*;

    /// An authority, and what it vouches for.
    pub(in crate::tls) struct Authority(pub(in crate::tls) CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        pub(in crate::tls) fn new(name: &str) -> Self {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
        }

        /// A chain without its root, and the key.
        pub(in crate::tls) fn issue(
            &self,
            names: &[&str],
            key: &'static SignatureAlgorithm,
        ) -> (String, String) {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name.push(DnType::CommonName, "a server");
            let key = KeyPair::generate_for(key).unwrap();
            (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
        }
    }

    impl Authority {
        /// A client's, by its number.
        pub(in crate::tls) fn issue_numbered(&self, name: &str, serial: u64) -> Certificate {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.serial_number = Some(serial.into());
            let key = KeyPair::generate().unwrap();
            let chain = params.signed_by(&key, &self.0).unwrap().pem();
            Certificate::of_pem(chain.as_bytes(), key.serialize_pem().as_bytes(), None).unwrap()
        }

        /// A list of the one number.
        pub(in crate::tls) fn revoke(&self, serial: u64) -> CertificateRevocationList {
            let revoked = RevokedCertParams {
                serial_number: serial.into(),
                revocation_time: date_time_ymd(2001, 1, 1),
                reason_code: None,
                invalidity_date: None,
            };
            let params = CertificateRevocationListParams {
                this_update: date_time_ymd(2001, 1, 1),
                next_update: date_time_ymd(4000, 1, 1),
                crl_number: 1_u64.into(),
                issuing_distribution_point: None,
                revoked_certs: vec![revoked],
                key_identifier_method: KeyIdMethod::Sha256,
            };
            params.signed_by(&self.0).unwrap()
        }
    }

    fn flaw(chain: &str, key: &str) -> String {
        Certificate::of_pem(chain.as_bytes(), key.as_bytes(), None).unwrap_err().to_string()
    }

    #[test]
    fn names_and_dates_are_those_of_the_first() {
        let authority = Authority::new("ours");
        let names = ["A.example", "*.a.example", "192.0.2.1", "2001:db8::1"];
        let (chain, key) = authority.issue(&names, &rcgen::PKCS_ECDSA_P256_SHA256);
        let chain = chain + &authority.0.pem();
        let read = Certificate::of_pem(chain.as_bytes(), key.as_bytes(), None).unwrap();
        let names: Vec<_> = read.names().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a.example", "*.a.example", "192.0.2.1", "2001:db8::1"]);
        assert_eq!(read.key_type(), "ecdsa");
        // rcgen's own: from 1975 to 4096.
        assert_eq!(read.validity(), 157_766_400..=67_090_118_400);
    }

    #[test]
    fn what_is_wrong_is_said_without_its_content() {
        let authority = Authority::new("ours");
        let (chain, key) = authority.issue(&["a"], &rcgen::PKCS_ECDSA_P256_SHA256);
        let (other, _) = authority.issue(&["b"], &rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(flaw("", &key), "holds no certificate in PEM");
        assert_eq!(flaw(&key, &key), "holds no certificate in PEM");
        assert_eq!(flaw(&chain, &chain), "holds no private key in PEM");
        assert_eq!(flaw(&other, &key), "is not the key of the certificate");
        let turned = authority.0.pem() + &chain;
        assert!(flaw(&turned, &key).starts_with("certificate 2 is not of the issuer of certificate 1: "));
        let cut = &chain[..chain.len() / 2];
        assert_eq!(flaw(cut, &key), "is no PEM: a section has no end");
        let broken = chain.replacen('M', "*", 1);
        assert_eq!(flaw(&broken, &key), "is no PEM: its base64 is broken");
        let none = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(flaw(none, &key), "certificate 1 is none");
    }
}
