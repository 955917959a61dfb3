//! Why there is no TLS with a peer, for people.

use rustls::{CertificateError, Error};

/// `certificate: expired`, `TLS: the answer is none`.
pub(super) fn said(error: &Error) -> String {
    let certificate = match error {
        Error::InvalidCertificate(certificate) => certificate,
        Error::NoCertificatesPresented => return "certificate: none".to_owned(),
        Error::InvalidMessage(_) => return "TLS: the answer is none".to_owned(),
        Error::AlertReceived(alert) => return format!("TLS: alert {alert:?}"),
        other => return format!("TLS: {other}"),
    };
    let why = match certificate {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "not valid yet".to_owned()
        }
        CertificateError::Revoked => "revoked".to_owned(),
        CertificateError::UnknownIssuer => "of an unknown issuer".to_owned(),
        CertificateError::BadSignature => "its signature is not its issuer's".to_owned(),
        CertificateError::NotValidForName => "for another name".to_owned(),
        CertificateError::NotValidForNameContext { expected, .. } => format!("not for {}", expected.to_str()),
        other => other.to_string(),
    };
    format!("certificate: {why}")
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, sync::Arc};

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use rustls::{
        ServerConfig, ServerConnection,
        crypto::aws_lc_rs,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    };

    use crate::tls::{Refusal, Trust, Upstream, certificate::tests::Authority};

    /// A server with a certificate for these names, which is good until this year.
    fn server(authority: &Authority, names: &[&str], until: i32, protocol: &[u8]) -> ServerConnection {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority.0).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        ServerConnection::new(Arc::new(config)).unwrap()
    }

    fn trust(authority: &Authority) -> Trust {
        Trust::of_pem(authority.0.pem().as_bytes()).unwrap()
    }

    fn shake_hands(
        trust: Trust,
        name: &str,
        protocols: &[&[u8]],
        mut server: ServerConnection,
    ) -> Result<(), Refusal> {
        let mut client = Upstream::new(trust, None, None, protocols).unwrap().begin(name)?;
        client.open(&mut [], &mut Vec::new())?;
        loop {
            let said = client.take_unsent();
            let mut left = &said[..];
            while !left.is_empty() {
                server.read_tls(&mut left).unwrap();
                // What it thinks of an alert is its own affair.
                _ = server.process_new_packets();
            }
            let mut answer = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut answer).unwrap();
            }
            client.open(&mut answer, &mut Vec::new())?;
            if !client.is_handshaking() && !server.is_handshaking() {
                assert!(server.reader().read(&mut [0; 1]).is_err(), "nothing was said");
                return Ok(());
            }
        }
    }

    #[test]
    fn a_certificate_that_is_looked_at_has_to_be_good() {
        let (ours, other) = (Authority::new("ours"), Authority::new("other"));
        let shake = |by: Trust, (names, until): (&[&str], i32), name: &str| {
            shake_hands(by, name, &[], server(&ours, names, until, b"h2"))
        };
        for (by, shown, name, expected) in [
            (trust(&ours), (&["127.0.0.1"], 4000), "127.0.0.1", None),
            (trust(&other), (&["a"], 4000), "a", Some("certificate: of an unknown issuer")),
            (trust(&ours), (&["a"], 2001), "a", Some("certificate: expired")),
            (trust(&ours), (&["a"], 4000), "b", Some("certificate: not for b")),
            (trust(&ours), (&["a"], 4000), "::1", Some("certificate: not for ::1")),
            // Nobody looks.
            (Trust::Anyone, (&["a"], 2001), "b", None),
        ] {
            let said = shake(by, (&shown.0[..], shown.1), name).err().map(|refusal| refusal.to_string());
            assert_eq!(said.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn who_speaks_something_else_is_told_from_who_speaks_tls() {
        let upstream = Upstream::new(Trust::Anyone, None, None, &[]).unwrap();
        let mut client = upstream.begin("a").unwrap();
        client.open(&mut [], &mut Vec::new()).unwrap();
        let mut answer = *b"HTTP/1.1 400 Bad Request\r\n\r\n";
        let refusal = client.open(&mut answer, &mut Vec::new()).unwrap_err();
        assert_eq!(refusal.to_string(), "TLS: the answer is none");
        let server = server(&Authority::new("ours"), &["a"], 4000, b"http/1.1");
        let refusal = shake_hands(Trust::Anyone, "a", &[b"h2"], server).unwrap_err();
        assert_eq!(refusal.to_string(), "TLS: alert NoApplicationProtocol");
    }
}
