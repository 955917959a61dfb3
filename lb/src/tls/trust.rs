//! Whose certificates are good.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};

/// Whose certificates are good.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Any that is shown, or none: nothing of it is looked at.
    Anyone,
    /// Those that these authorities vouch for.
    Roots(Arc<RootCertStore>),
}

impl Trust {
    /// Of the authorities that this host trusts. Reads its files.
    ///
    /// # Errors
    /// There are none.
    pub fn of_host() -> Result<Self, String> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // A host may trust one that webpki cannot read: the others count.
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(format!("this host has no certificates of authorities{why}"));
        }
        Ok(Self::Roots(Arc::new(roots)))
    }

    /// Of the authorities in a text of PEM.
    ///
    /// # Errors
    /// There is none in it, or one cannot be read.
    pub fn of_pem(text: &[u8]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for (at, certificate) in CertificateDer::pem_slice_iter(text).enumerate() {
            let of = |why: String| format!("certificate {}: {why}", at + 1);
            let certificate = certificate.map_err(|error| of(error.to_string()))?;
            roots.add(certificate).map_err(|error| of(error.to_string()))?;
        }
        match roots.is_empty() {
            true => Err("holds no certificate in PEM".to_owned()),
            false => Ok(Self::Roots(Arc::new(roots))),
        }
    }

    /// What tells these authorities from others.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let roots = match self {
            Self::Anyone => &[][..],
            Self::Roots(roots) => &roots.roots,
        };
        roots.iter().flat_map(|root| [root.subject.as_ref(), root.subject_public_key_info.as_ref()])
    }
}

/// Looks at no certificate, and so at no signature of its key either.
#[derive(Debug)]
pub(super) struct TakesAnyone(pub(super) Arc<CryptoProvider>);

impl ServerCertVerifier for TakesAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_said_to_be_one() {
        let error = |text: &[u8]| Trust::of_pem(text).unwrap_err();
        assert_eq!(error(b""), "holds no certificate in PEM");
        assert_eq!(error(b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"), error(b""));
        let empty = error(b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n");
        assert!(empty.starts_with("certificate 1: "), "{empty}");
    }
}
