//! What is asked of clients, and what backends are told of who they are.

use std::{fmt::Write as _, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::FromDer as _,
    revocation_list::CertificateRevocationList,
    x509::{AttributeTypeAndValue, X509Name},
};

use super::{name::address, pem_flaw::pem_flaw, trust::Trust};
use crate::config::ClientField;

/// What is asked of clients.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Whose certificates are good.
    pub trust: Trust,
    /// Whether who shows none is turned away.
    pub is_required: bool,
    /// Which are not good any more.
    pub revoked: Vec<CertificateRevocationListDer<'static>>,
    /// Fields that tell backends who it is, lower-cased.
    pub fields: Vec<(Arc<str>, ClientField)>,
}

/// Lists of what is not good any more, in PEM or in DER.
///
/// # Errors
/// There is none in it.
pub fn revocations(content: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    if content.first() == Some(&0x30) {
        return Ok(vec![CertificateRevocationListDer::from(content.to_vec())]);
    }
    let lists = CertificateRevocationListDer::pem_slice_iter(content).collect::<Result<Vec<_>, _>>();
    match lists {
        Ok(lists) if lists.is_empty() => Err("holds no list of revoked certificates".to_owned()),
        Ok(lists) => Ok(lists),
        Err(error) => Err(pem_flaw(&error).to_owned()),
    }
}

/// When the first of these lists is to be followed by another, in seconds since 1970; `None`: none says so.
pub fn next_update(lists: &[CertificateRevocationListDer<'_>]) -> Option<i64> {
    let next = |list: &CertificateRevocationListDer<'_>| {
        let (_, list) = CertificateRevocationList::from_der(list).ok()?;
        Some(list.next_update()?.timestamp())
    };
    lists.iter().filter_map(next).min()
}

impl Clients {
    /// Looks at every certificate of a chain, and takes none whose authority's list is missing where there are lists.
    pub(super) fn verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let Trust::Roots(roots) = &self.trust else {
            return Err("clients are vouched for by authorities".to_owned());
        };
        let builder = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider);
        let builder = builder.with_crls(self.revoked.iter().cloned());
        let builder = if self.is_required { builder } else { builder.allow_unauthenticated() };
        builder.build().map_err(|error| error.to_string())
    }
}

/// What fields say of a client that has shown this chain, its own certificate first. What it does not have is empty;
/// nothing in it ends a field's line.
pub fn tell(chain: &[CertificateDer<'_>], what: ClientField) -> String {
    let Some(own) = chain.first() else { return String::new() };
    let parsed = X509Certificate::from_der(own).ok().map(|(_, parsed)| parsed);
    let of = |say: fn(&X509Certificate<'_>) -> String| parsed.as_ref().map(say).unwrap_or_default();
    match what {
        ClientField::Certificate => item(own),
        ClientField::Chain => chain[1..].iter().map(|one| item(one)).collect::<Vec<_>>().join(", "),
        ClientField::Subject => of(|parsed| name(parsed.subject())),
        ClientField::Issuer => of(|parsed| name(parsed.issuer())),
        ClientField::Serial => of(|parsed| hex(parsed.raw_serial())),
        ClientField::Names => of(alternatives),
        ClientField::Fingerprint => hex(digest(&SHA256, own).as_ref()),
    }
}

/// Source: RFC 9440, 2.1: a byte sequence of RFC 8941, 3.3.5.
fn item(der: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(der.len().div_ceil(3) * 4 + 2);
    text.push(':');
    for block in der.chunks(3) {
        let word =
            block.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - block.len()));
        for at in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= block.len() { char::from(letter) } else { '=' });
        }
    }
    text.push(':');
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

/// Source: RFC 4514, 2: the last part first.
fn name(name: &X509Name<'_>) -> String {
    let parts: Vec<String> =
        name.iter().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

/// Source: RFC 4514, 2.3 and 3.
fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let known = match &*oid {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        _ => "",
    };
    match attribute.as_str() {
        Ok(text) if !known.is_empty() => format!("{known}={}", escaped(text)),
        // Whole, with tag and length, as nobody need know the type.
        _ => match attribute.attr_value().as_bytes().len() {
            len @ 0..128 => {
                let tag = u8::try_from(attribute.attr_value().tag().0).unwrap_or(0x0c);
                format!("{oid}=#{tag:02x}{len:02x}{}", hex(attribute.attr_value().as_bytes()))
            }
            _ => format!("{oid}=#"),
        },
    }
}

/// Source: RFC 4514, 2.4; what is not printable ASCII goes by pairs of digits, too.
fn escaped(text: &str) -> String {
    let last = text.len().saturating_sub(1);
    let mut escaped = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                escaped.push('\\');
                escaped.push(char::from(byte));
            }
            b' ' if at == 0 || at == last => escaped.push_str("\\20"),
            b'#' if at == 0 => escaped.push_str("\\23"),
            b' '..=b'~' => escaped.push(char::from(byte)),
            _ => _ = write!(escaped, "\\{byte:02x}"),
        }
    }
    escaped
}

fn alternatives(certificate: &X509Certificate<'_>) -> String {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return String::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(text) => Some(format!("DNS:{}", quoted(text))),
        GeneralName::IPAddress(bytes) => Some(format!("IP:{}", address(bytes)?)),
        GeneralName::URI(text) => Some(format!("URI:{}", quoted(text))),
        GeneralName::RFC822Name(text) => Some(format!("email:{}", quoted(text))),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect::<Vec<_>>().join(",")
}

/// By percent signs what would be taken for the end of a name, or of a line.
fn quoted(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut quoted, byte| {
        match byte {
            b'!'..=b'~' if byte != b',' && byte != b'%' => quoted.push(char::from(byte)),
            _ => _ = write!(quoted, "%{byte:02X}"),
        }
        quoted
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, string::Ia5String};

    use super::*;

    fn certificate(params: CertificateParams) -> CertificateDer<'static> {
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn names_say_who_it_is_and_nothing_else() {
        let mut params =
            CertificateParams::new(vec!["a.example".to_owned(), "192.0.2.1".to_owned()]).unwrap();
        let uri = Ia5String::try_from("spiffe://a/b,DNS:c").unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Good, and \u{e4}\r\nX: y");
        params.distinguished_name.push(DnType::CommonName, " #a+CN=b ");
        params.serial_number = Some(vec![0x0a, 0xff].into());
        let chain = [certificate(params)];
        assert_eq!(
            tell(&chain, ClientField::Subject),
            "CN=\\20#a\\+CN=b\\20,O=Good\\, and \\c3\\a4\\0d\\0aX: y"
        );
        assert_eq!(tell(&chain, ClientField::Names), "DNS:a.example,IP:192.0.2.1,URI:spiffe://a/b%2CDNS:c");
        assert_eq!(tell(&chain, ClientField::Serial), "0aff");
        assert_eq!(tell(&chain, ClientField::Fingerprint).len(), 64);
        assert_eq!(tell(&chain, ClientField::Chain), "");
        assert_eq!(tell(&[], ClientField::Subject), "");
    }

    #[test]
    fn certificates_go_as_byte_sequences() {
        for (bytes, text) in [(&b""[..], "::"), (b"M", ":TQ==:"), (b"Ma", ":TWE=:"), (b"Man", ":TWFu:")] {
            assert_eq!(item(bytes), text);
        }
        let one = CertificateDer::from(vec![1, 2, 3]);
        let chain = [one.clone(), one.clone(), one];
        assert_eq!(tell(&chain, ClientField::Certificate), ":AQID:");
        assert_eq!(tell(&chain, ClientField::Chain), ":AQID:, :AQID:");
    }

    #[test]
    fn a_file_of_no_lists_is_said_to_be_one() {
        assert_eq!(revocations(b"").unwrap_err(), "holds no list of revoked certificates");
        assert_eq!(
            revocations(b"-----BEGIN X509 CRL-----\nAA").unwrap_err(),
            "is no PEM: a section has no end"
        );
    }
}
